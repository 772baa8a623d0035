"""What a sweep left behind, read and summed up.

Everything here is on the stored scale, accuracy in [0, 1]; only `words` multiplies by 100.
"""

from orchestration.results.estimates import paired_interval
from orchestration.results.tables import Tables, load

__all__ = ["Tables", "load", "paired_interval"]
