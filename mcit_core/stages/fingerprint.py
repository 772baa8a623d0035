"""What a stage's bits depend on beside its fields and data: the code it runs and the libraries under it."""

from __future__ import annotations

from mcit_core.config import Experiment
from mcit_core.registry import BENCHMARKS, MODELS, TUNERS
from mcit_core.stages.digest import code_fingerprint, imported, installed, module_fingerprint

#: a line more in these tables leaves finished stages valid: the parts that a stage runs are named in its key
TABLES = ("mcit_core.registry",)
LIBRARIES = ("torch", "transformers", "peft", "numpy", "scikit-learn")


def numerics(experiment: Experiment) -> dict[str, str]:
    """Fingerprint of the code that a stage of `experiment` runs, and the versions of the libraries: the sequence, its
    tuner, model and benchmark, and all that they import; of a part that a third party registered its whole package."""
    named = {
        "tuner": TUNERS.module_of(experiment.tuner) or "",
        "model": MODELS.module_of(experiment.model) or "",
        "benchmark": BENCHMARKS.module_of(experiment.benchmark) or "",
    }
    theirs = {part: module for part, module in named.items() if module and not module.startswith("mcit_core.")}
    roots = {"mcit_core.training.sequence", *(set(named.values()) - set(theirs.values()) - {""})}
    roots |= {name for module in theirs.values() for name in imported(module)}
    parts = {"code": code_fingerprint(*sorted(roots), leaving_out=TABLES)}
    parts |= {f"code of {part}": module_fingerprint(module) for part, module in theirs.items()}
    return parts | {library: installed(library) for library in LIBRARIES}


def data_code(benchmark: str, model: str) -> dict[str, str]:
    """Fingerprints of the code that makes the rows of a benchmark and their features."""
    modules = [MODELS.module_of(model) or "", BENCHMARKS.module_of(benchmark) or ""]
    ours = [module for module in modules if module.startswith("mcit_core.")]
    theirs = [module for module in modules if module not in ours]
    used = sorted({name for module in theirs for name in imported(module)})
    parts = {"code": code_fingerprint("mcit_core.data.features", *ours, *used, leaving_out=TABLES)}
    return parts | {module: module_fingerprint(module) for module in theirs}
