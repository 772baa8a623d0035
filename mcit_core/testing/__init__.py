"""The contracts as suites of pytest: subclass the one of your part in your own tests, name the part, and run pytest.

    from mcit_core.testing import TunerContract

    class TestMine(TunerContract):
        tuner = "mine"            # as registered, or through your package's entry point

Needs pytest. Everything runs on the embedded model and a small share of the embedded benchmark, in seconds.
"""

from mcit_core.testing.benchmark import BenchmarkContract
from mcit_core.testing.model import ModelContract
from mcit_core.testing.protection import ProtectionContract
from mcit_core.testing.tuner import TunerContract
from mcit_core.testing.workbench import SMALL, small_workbench

__all__ = ["SMALL", "BenchmarkContract", "ModelContract", "ProtectionContract", "TunerContract", "small_workbench"]
