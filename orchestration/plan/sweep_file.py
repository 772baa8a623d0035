"""The sweep file: YAML -> SweepSpec; every fault names file, line, key, what was expected and the nearest valid name.

Imports neither torch nor ray, so that a broken file is refused at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from graphlib import CycleError
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mcit_core.benchmarks import Benchmark
from mcit_core.choices import Choice
from mcit_core.config import Value, flatten
from mcit_core.experiment_file import PARTS, choose, open_benchmark, unread_settings
from mcit_core.methods import REFERENCES, method_names
from mcit_core.registry import near
from mcit_core.stages.keys import read_paths
from mcit_core.yaml_document import Document, wanted
from orchestration.plan.axes import SETTABLE, check_value, read_axes
from orchestration.plan.halving import race
from orchestration.plan.orders import are_drawn
from orchestration.plan.overrides import override
from orchestration.plan.space import Space
from orchestration.plan.spec import GRID, HalvingRule, Order, Range, RobustRule, SweepSpec
from orchestration.plan.trials import Trial, make_trials
from orchestration.search.registry import SEARCHES, settings_of
from orchestration.search.settings import SearchSettings

#: names in a storage folder that are not a RUN's
RESERVED = ("stages", "evaluations", "leases", "features", "mlartifacts", "mlflow.db")
#: ends of names that SQLite gives to files of its own beside mlflow.db
SQLITE = ("-journal", "-wal", "-shm")
#: what neither a file of numbers nor a random generator can hold
SEED_LIMIT = 2**63
NEEDED = ("name", "benchmark", "model", "method")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Resources(_Strict):
    processes: int = Field(1, ge=1, description="of one trial, which share the rows of each batch")
    cpus: float = Field(1, gt=0, description="of one process")
    gpus: float = Field(0, ge=0, description="of one process; a fraction shares a GPU")
    workers: int | None = Field(None, ge=1, description="trials at a time; null: as many as fit")


class Tracking(_Strict):
    mlflow: str | None = Field(None, description="a tracking URI; null: mlflow.db in the storage folder")
    system_metrics: bool = Field(False, description="log what the driver's machine does in the sweep's run")


class HalvingSection(_Strict):
    min_stages: int = Field(1, ge=1, description="stages that every setting gets")
    reduction: int = Field(2, ge=2, description="one in so many settings goes on, after so many times as many stages")


class RobustSection(_Strict):
    over: list[Literal["order", "seed"]] = Field(["order", "seed"], min_length=1, description="what to hold over")
    statistic: Literal["mean", "worst", "cvar"] = Field("mean", description="of a setting's values over these")
    level: float = Field(0.25, gt=0, le=1, description="share of the worst values that cvar is the mean of")
    pruner: Literal["wilcoxon"] | None = Field(None, description="drops settings that are behind in paired cells")


class SweepFile(_Strict):
    """The top level of a sweep file, before names and points are checked."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)
    benchmark: Value
    model: Value
    method: str
    tasks: int | list[str] | None = None
    base: dict[str, Value] = {}
    axes: dict[str, Value] = {}
    seeds: list[int] = [0]
    references: list[str] = []
    search: Value = GRID
    robust: RobustSection | None = None
    halving: HalvingSection | None = None
    resources: Resources = Resources()
    tracking: Tracking = Tracking()
    provenance: dict[str, Value] = Field({}, description="written into a RUN's sweep.yaml; not read")


def load_spec(path: Path, assignments: list[str] | None = None) -> SweepSpec:
    """Read, override (`--set KEY=VALUE`) and check a sweep file. Raises SpecError, whose text is the whole message."""
    document = Document(path, "a sweep file in YAML, for example sweeps/threshold.yaml", NEEDED, ("base",))
    override(document, assignments or [], tuple(SweepFile.model_fields), SETTABLE)
    document.refuse()
    file = _top_level(document)
    choices = _names(document, file)
    document.refuse()
    benchmark = open_benchmark(document, choices["benchmark"])
    tasks = _tasks(document, file, benchmark)
    _check_list(
        document,
        "seeds",
        file.seeds,
        lambda seed: None if 0 <= seed < SEED_LIMIT else f"expected a whole number from 0 to 2**63 - 1, got {seed}",
    )
    _check_list(
        document,
        "references",
        file.references,
        lambda name: (
            None
            if name in REFERENCES
            else (f"there is no reference {name!r}; expected one of {', '.join(REFERENCES)}{near(name, REFERENCES)}")
        ),
    )
    if not file.seeds:
        document.fault(("seeds",), "is an empty list; expected at least one seed")
    base = flatten(file.base)
    for field, value in base.items():
        check_value(document, ("base", *field.split(".")), field, value)
    axes = read_axes(document, file.axes, tasks, base, choices)
    document.refuse()
    spec = SweepSpec(
        name=file.name,
        benchmark=choices["benchmark"],
        model=choices["model"],
        method=file.method,
        tasks=tasks,
        base=base,
        axes=axes.values,
        orders=axes.orders,
        order_swept="order" in file.axes,
        orders_drawn=are_drawn(file.axes.get("order")),
        seeds=tuple(file.seeds),
        references=tuple(file.references),
        processes=file.resources.processes,
        cpus=file.resources.cpus,
        gpus=file.resources.gpus,
        workers=file.resources.workers,
        mlflow=file.tracking.mlflow,
        system_metrics=file.tracking.system_metrics,
        halving=HalvingRule(**file.halving.model_dump()) if file.halving else None,
        search=choices["search"],
        when=axes.when,
        robust=None if file.robust is None else RobustRule(**{**vars(file.robust), "over": tuple(file.robust.over)}),
    )
    _check_search(document, spec)
    document.refuse()
    points = _check_points(document, spec)
    document.refuse()
    _check_read(document, spec, points)
    _check_halving(document, spec, points)
    document.refuse()
    return spec


def resolved(spec: SweepSpec) -> dict[str, Value]:
    """The spec as a mapping that `load_spec` reads again, nothing left to defaults."""
    axes = spec.axes_as_written()
    if spec.order_swept:
        listed: Value = [list(order) for order in spec.orders]
        axes["order"] = {"kind": "explicit", "orders": listed, "drawn": True} if spec.orders_drawn else listed
    return {
        "name": spec.name,
        "benchmark": spec.benchmark,
        "tasks": list(spec.tasks),
        "model": spec.model,
        "method": spec.method,
        "base": spec.base,
        "axes": axes,
        "seeds": list(spec.seeds),
        "references": list(spec.references),
        "search": spec.search,
        **({} if spec.robust is None else {"robust": {**vars(spec.robust), "over": list(spec.robust.over)}}),
        "halving": vars(spec.halving) if spec.halving else None,
        "resources": {"processes": spec.processes, "cpus": spec.cpus, "gpus": spec.gpus, "workers": spec.workers},
        "tracking": {"mlflow": spec.mlflow, "system_metrics": spec.system_metrics},
    }


def _top_level(document: Document) -> SweepFile:
    # an empty section in YAML is null; it means the same as leaving it out
    content = {key: value for key, value in document.content.items() if value is not None or key in NEEDED}
    try:
        return SweepFile.model_validate(content)
    except ValidationError as error:
        for fault in error.errors():
            keys = tuple(str(part) for part in fault["loc"])
            if keys[0] == "tasks":
                document.fault(
                    ("tasks",),
                    f"expected null (all), a number (the first n) or a list of names, got {content['tasks']!r}",
                )
            elif fault["type"] == "extra_forbidden":
                sections: dict[str, type[_Strict]] = {
                    "resources": Resources,
                    "tracking": Tracking,
                    "halving": HalvingSection,
                    "robust": RobustSection,
                }
                section = sections.get(keys[0], SweepFile)
                valid = [name for name in section.model_fields if name != "provenance"]
                document.fault(keys, f"unknown key; expected one of {', '.join(valid)}{near(keys[-1], valid)}")
            elif fault["type"] == "missing":
                document.fault(keys, "is missing; a sweep needs name, benchmark, model and method")
            elif fault["type"] == "string_too_long":
                document.fault(
                    keys, f"expected at most {fault['ctx']['max_length']} characters, got {len(fault['input'])}"
                )
            elif keys[0] == "name" and fault["type"] == "string_pattern_mismatch":
                document.fault(
                    keys, f"expected letters, digits, '.', '_' or '-' (it names a folder), got {fault['input']!r}"
                )
            elif keys == ("halving",):
                document.fault(
                    keys,
                    "expected null (every trial runs to its end) or {min_stages: 1, reduction: 2}, "
                    f"got {fault['input']!r}",
                )
            else:
                document.fault(keys, wanted(fault))
        document.refuse()
        raise


def _names(document: Document, file: SweepFile) -> dict[str, Choice]:
    """Benchmark and model as the file chooses them, names and settings checked."""
    choices: dict[str, Choice] = {}
    for key in PARTS:
        choices[key] = choose(document, key, getattr(file, key))
    choices["search"] = choose(document, "search", file.search, SEARCHES)
    document.known(("method",), "method", file.method, method_names())
    if file.name.lower() in RESERVED or file.name.lower().endswith(SQLITE):
        document.fault(("name",), f"{file.name!r} is a name that the storage folder uses itself; choose another")
    return choices


T = TypeVar("T")


def _check_list(document: Document, key: str, values: list[T], complaint: Callable[[T], str | None]) -> None:
    for i, value in enumerate(values):
        if message := complaint(value):
            document.fault((key, str(i)), message)
        elif value in values[:i]:
            document.fault((key, str(i)), f"{value!r} stands twice")


def _tasks(document: Document, file: SweepFile, benchmark: Benchmark) -> Order:
    every = benchmark.tasks
    if file.tasks is None:
        return every
    if isinstance(file.tasks, int):
        if not 1 <= file.tasks <= len(every):
            document.fault(("tasks",), f"expected a number from 1 to {len(every)}, got {file.tasks}")
        return every[: max(1, file.tasks)]
    if not file.tasks:
        document.fault(("tasks",), "is an empty list; expected null (all tasks), a number or a list of names")
        return every
    _check_list(
        document,
        "tasks",
        file.tasks,
        lambda task: (
            None
            if task in every
            else (f"{benchmark.name} has no task {task!r}; expected one of {', '.join(every)}{near(task, every)}")
        ),
    )
    return tuple(file.tasks)


def _check_search(document: Document, spec: SweepSpec) -> None:
    """What of the search does not fit the rest of the file."""
    try:
        Space(spec)
    except CycleError as error:
        document.fault(("axes",), f"the conditions of {' and '.join(error.args[1][:-1])} wait for one another")
        return
    if not spec.searched:
        for name, values in spec.axes.items():
            if isinstance(values, Range) and values.count is None:
                document.fault(
                    ("axes", name),
                    f"{spec.search} goes through every value, and this range has no step; give it one, list values, or "
                    "set search, for example to {kind: optuna, trials: 40}",
                )
        if spec.robust is not None:
            document.fault(("robust",), "is about how a search values a setting; set search, or leave it out")
        return
    settings = search_settings(document, spec.search)
    rule = spec.robust
    if rule is not None and rule.pruner is not None:
        if rule.statistic != "mean":
            document.fault(
                ("robust", "pruner"),
                f"wilcoxon compares cells one with another, which says nothing of {rule.statistic}; set statistic: "
                "mean, or leave it out",
            )
        if spec.halving is not None:
            document.fault(("robust", "pruner"), "a search has a pruner or halving; keep one of them")
        if settings is not None and settings.objectives != {"average_accuracy": "maximize"}:
            document.fault(
                ("robust", "pruner"), "wilcoxon compares accuracies; it takes average_accuracy as the one objective"
            )
    if not spec.axes:
        document.fault(("search",), "has nothing to choose; expected an axis beside order")
    if settings is not None:
        _check_objectives(document, spec, settings)
        if spec.halving is not None and settings.batch < 2:
            document.fault(("search", "batch"), "halving compares the settings of a batch; expected at least 2, got 1")


def _check_objectives(document: Document, spec: SweepSpec, settings: SearchSettings) -> None:
    """Metrics that would be undefined in every trial."""
    needs = {
        "forward_transfer": (spec.base.get("evaluation.cells") == "all", "base: {evaluation.cells: all}"),
        **dict.fromkeys(("intransigence", "transfer_to_direct"), ("direct" in spec.references, "references: [direct]")),
        **dict.fromkeys(("forgetting", "backward_transfer"), (len(spec.tasks) > 1, "tasks to at least two")),
    }
    for key, names in (("objectives", settings.objectives), ("constraints", settings.constraints)):
        for name in names:
            there, remedy = needs.get(name, (True, ""))
            if not there:
                document.fault(("search", key, name), f"is not known on validation rows without more; set {remedy}")


def search_settings(document: Document, search: Choice) -> SearchSettings | None:
    """The settings of a search; where they are faulty, None, and the fault noted."""
    try:
        found = settings_of(search)
    except ValidationError as error:
        for fault in error.errors():
            document.fault(("search", *map(str, fault["loc"])), wanted(fault))
        return None
    return found if isinstance(found, SearchSettings) else None


def _check_halving(document: Document, spec: SweepSpec, points: list[Trial]) -> None:
    halving = race(spec, points)
    if halving is None:
        return
    if halving.rule.min_stages >= len(spec.tasks):
        document.fault(
            ("halving", "min_stages"),
            f"expected less than the number of tasks, {len(spec.tasks)}, got {halving.rule.min_stages}",
        )
    if len(set(halving.settings.values())) < 2:
        document.fault(
            ("halving",),
            "has no settings to choose from; expected an axis beside order with two values, not of references alone",
        )


def _check_read(document: Document, spec: SweepSpec, points: list[Trial]) -> None:
    """Refuse a setting that nothing in the sweep reads: it would change no number."""
    read = {path for trial in points for path in read_paths(trial.experiment)}
    for field, why in unread_settings({**spec.base, **spec.values()}, read).items():
        document.fault(("axes", field) if field in spec.axes else ("base", *field.split(".")), why)


def _check_points(document: Document, spec: SweepSpec) -> list[Trial]:
    """Build every point of the axes once, for what only shows when fields meet (top_k above the pool's size); of a
    search, which leaves out points that make no sense, a sample of those that do."""
    once = replace(spec, orders=spec.orders[:1], seeds=spec.seeds[:1])
    try:
        if not spec.searched:
            return make_trials(once)
        space = Space(spec)
        points = space.sample()
        return make_trials(once, [point for point in points if space.fault(point) is None] or points[:1])
    except ValidationError as error:
        fault = error.errors()[0]
        place = ".".join(str(part) for part in fault["loc"])
        words = [field for field in (*spec.axes, *spec.base) if field.startswith(place) and field in fault["msg"]]
        field = words[0] if words else place
        if "processes" in fault["msg"]:
            document.fault(("resources", "processes"), wanted(fault))
            return []
        document.fault(
            ("axes" if field in spec.axes else "base", *([field] if field in spec.axes else field.split("."))),
            wanted(fault),
        )
        return []
    except ValueError as error:  # a setting that is given as a whole and in part
        document.fault(("base", "options"), str(error))
        return []
