"""What a sweep left behind, read and summed up.

Everything here is on the stored scale, accuracy in [0, 1]; only `words` multiplies by 100.
"""

from orchestration.results.estimates import paired_interval

__all__ = ["paired_interval"]
