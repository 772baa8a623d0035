"""What a stage's bits depend on beside its fields and data: the code it runs and the libraries under it."""

from __future__ import annotations

import re
from pathlib import Path

from mcit_core.config import Experiment
from mcit_core.digest import code_fingerprint, installed, module_fingerprint
from mcit_core.registry import BENCHMARKS, MODELS, TUNERS

#: files of this package that no stage runs
NOT_RUN = ("run.py", "methods.py", "metrics.py", "registry.py", "models/mini_pretraining.py")
LIBRARIES = ("torch", "transformers", "peft", "numpy", "scikit-learn")


def _read_by(tuner: str, folder: Path) -> set[str]:
    """The built-in tuners' files, by stem, that the tuner's own file imports, itself included, and theirs in turn."""
    found, new = set[str](), {tuner}
    while new:
        found |= new
        sources = [
            (folder / f"{name}.py").read_text(encoding="utf-8") for name in new if (folder / f"{name}.py").exists()
        ]
        new = {
            name for source in sources for name in re.findall(r"mcit_core\.tuners(?:\.| import )(\w+)", source)
        } - found
    return found


def numerics(experiment: Experiment) -> dict[str, str]:
    """Fingerprint of the code that a stage of `experiment` runs, and the versions of the libraries. Of the built-in
    tuners only its own counts, with what that imports of the others; a part that a third party registered counts by the
    source of its whole package, and may use every built-in tuner."""
    tuner = TUNERS.module_of(experiment.tuner) or ""
    others: tuple[str, ...] = ()
    if tuner.startswith("mcit_core."):
        folder = Path(__file__).parent / "tuners"
        read = {"__init__", *_read_by(tuner.rpartition(".")[2], folder)}
        others = tuple(f"tuners/{path.name}" for path in sorted(folder.glob("*.py")) if path.stem not in read)
    parts = {"code": code_fingerprint(leaving_out=(*NOT_RUN, *others))}
    for name, module in (
        ("tuner", tuner),
        ("model", MODELS.module_of(experiment.model)),
        ("benchmark", BENCHMARKS.module_of(experiment.benchmark)),
    ):
        if module and not module.startswith("mcit_core."):
            parts[f"code of {name}"] = module_fingerprint(module)
    return parts | {library: installed(library) for library in LIBRARIES}
