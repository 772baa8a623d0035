"""What a stage's bits depend on beside its fields and data: the code it runs and the libraries under it."""

from __future__ import annotations

from pathlib import Path

from mcit_core.config import Experiment
from mcit_core.digest import code_fingerprint, installed, module_fingerprint
from mcit_core.registry import BENCHMARKS, MODELS, TUNERS

#: files of this package that no stage runs
NOT_RUN = ("run.py", "methods.py", "metrics.py", "registry.py", "models/mini_pretraining.py")
LIBRARIES = ("torch", "transformers", "peft", "numpy", "scikit-learn")


def numerics(experiment: Experiment) -> dict[str, str]:
    """Fingerprint of the code that a stage of `experiment` runs, and the versions of the libraries. Of the tuners only
    its own counts; a part that a third party registered counts by its module's source."""
    tuner = TUNERS.module_of(experiment.tuner) or ""
    folder = Path(__file__).parent / "tuners"
    own = tuner.rpartition(".")[2] + ".py"
    others = tuple(f"tuners/{path.name}" for path in folder.glob("*.py") if path.name not in ("__init__.py", own))
    parts = {"code": code_fingerprint(leaving_out=(*NOT_RUN, *others))}
    for name, module in (
        ("tuner", tuner),
        ("model", MODELS.module_of(experiment.model)),
        ("benchmark", BENCHMARKS.module_of(experiment.benchmark)),
    ):
        if module and not module.startswith("mcit_core."):
            parts[f"code of {name}"] = module_fingerprint(module)
    return parts | {library: installed(library) for library in LIBRARIES}
