"""Multimodal continual instruction tuning: projection, prompt-pool and averaging steps, one task after another.

`Sequence(experiment, bench)` trains an experiment; `examples/one_sequence.py` shows how. Its accuracies, after the
stage in the row on the task in the column, come to metrics by `summarise`.

Examples:
    >>> import mcit_core
    >>> experiment = mcit_core.build_experiment(
    ...     "mini", "mini", "pegp_lora", ("attribute", "ground"), settings={"train.steps": 20}
    ... )
    >>> experiment.tuner, [*experiment.protections()], experiment.train.steps
    ('lora', ['projection.pegp'], 20)

    >>> metrics = mcit_core.summarise([[0.75, 0.25], [0.5, 0.75]], zero_shot=[0.0, 0.25])
    >>> metrics["average_accuracy"], metrics["forgetting"], metrics["forward_transfer"]
    (0.625, 0.25, 0.0)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from mcit_core.stages.sources import OURS, SOURCES

SOURCES.remember(OURS)  # as the sources are now, before any of them is imported; see `mcit_core.stages.sources`

if TYPE_CHECKING:
    from mcit_core.config import Experiment as Experiment
    from mcit_core.methods import build_experiment as build_experiment
    from mcit_core.metrics import summarise as summarise
    from mcit_core.training.sequence import Sequence as Sequence

    __version__: str

#: name -> the module that it is loaded from on first use. Text, not imports: importing the package loads no torch, and
#: a stage's key follows imports, so that an edit of the metrics leaves finished stages valid
_NAMES = {
    "Experiment": "mcit_core.config",
    "Sequence": "mcit_core.training.sequence",
    "build_experiment": "mcit_core.methods",
    "summarise": "mcit_core.metrics",
}


if not TYPE_CHECKING:  # or else a type checker would take every misspelt name for one of ours

    def __getattr__(name: str) -> object:
        if name == "__version__":
            return importlib.import_module("mcit_core.stages.sources").installed("mcit")
        if name not in _NAMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(importlib.import_module(_NAMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_NAMES, "__version__"})
