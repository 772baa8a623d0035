"""What a stage's bits depend on beside its fields and data: the code it runs and the libraries under it."""

from __future__ import annotations

from collections.abc import Iterable

from mcit_core.choices import Choice, kind_of
from mcit_core.config import Experiment, Value
from mcit_core.registry import BENCHMARKS, MODELS, PROTECTIONS, TUNERS
from mcit_core.stages.sources import SOURCES, Fingerprint

#: modules that nothing stored runs, though others import them: a line more in the catalogue leaves finished stages
#: valid, and the parts that a stage runs are named in its key; the majority floor is never stored
TABLES = ("mcit_core", "mcit_core.registry", "mcit_core.training.majority")


def _code(roots: Iterable[str | None]) -> Fingerprint:
    return SOURCES.fingerprint([root for root in roots if root], TABLES)


def _as_key(found: Fingerprint) -> dict[str, Value]:
    return {"code": {**found.code}, "libraries": {**found.libraries}}


def stage_code(experiment: Experiment, protections: Iterable[str]) -> dict[str, Value]:
    """Of the sequence, the experiment's tuner, model and benchmark, these protections, and all that they import:
    {"code": module -> digest, "libraries": distribution -> version}."""
    parts = [PROTECTIONS.module_of(name) for name in protections]
    return _as_key(_code([*_frozen_parts(experiment), TUNERS.module_of(experiment.tuner), *parts]))


def untouched_code(experiment: Experiment) -> dict[str, Value]:
    """As `stage_code`, for the model as it is without any tuner."""
    return _as_key(_code(_frozen_parts(experiment)))


def _frozen_parts(experiment: Experiment) -> list[str | None]:
    model, benchmark = kind_of(experiment.model), kind_of(experiment.benchmark)
    return ["mcit_core.training.sequence", MODELS.module_of(model), BENCHMARKS.module_of(benchmark)]


def feature_code(model: Choice) -> dict[str, Value]:
    """Of what makes features of rows, in the form of `stage_code`."""
    return _as_key(_code(["mcit_core.data.features", MODELS.module_of(kind_of(model))]))


def benchmark_code(benchmark: Choice) -> dict[str, Value]:
    """Of what opens a benchmark's rows, in the form of `stage_code`."""
    return _as_key(_code([BENCHMARKS.module_of(kind_of(benchmark))]))


def rows_code(module: str) -> dict[str, Value]:
    """Of one module and all that it imports: for rows that follow from the code that draws them."""
    return _as_key(_code([module]))
