"""The experiment file: YAML -> Experiment; every fault names file, line, key, what was expected, the nearest name."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from pydantic import ValidationError

from mcit_core.benchmarks import Benchmark, load_benchmark
from mcit_core.choices import Choice, checked_choice, kind_of
from mcit_core.config import PROTECTING, Experiment, Value, field_paths, flatten, is_field
from mcit_core.methods import build_experiment, method_names
from mcit_core.registry import BENCHMARKS, MODELS, TUNER_SECTIONS, TUNERS, Part, Registry, near
from mcit_core.stages.keys import read_paths
from mcit_core.yaml_document import Document, wanted

NEEDED = ("benchmark", "model", "method")
#: the parts that are chosen by name, or by {kind: NAME, ...} with settings of their own
PARTS: dict[str, Registry[Part]] = {"benchmark": BENCHMARKS, "model": MODELS}


def choose(document: Document, key: str, value: Value, registry: Registry[Part] | None = None) -> Choice:
    """What a file chooses as its benchmark or model, or of another registry, name and settings checked; faults are
    noted in `document`."""
    registry = registry or PARTS[key]
    if not isinstance(value, str | dict) or (isinstance(value, dict) and "kind" not in value):
        document.fault((key,), f"expected the name of a {key} or {{kind: NAME, ...}}, got {value!r}")
        return ""
    name = value if isinstance(value, str) else value["kind"]
    document.known((key,) if isinstance(value, str) else (key, "kind"), key, name, registry.names())
    if name not in registry.names():
        return ""
    try:
        return checked_choice(registry, value)
    except ValidationError as error:
        _fault_settings(document, key, error)
        return ""


def open_benchmark(document: Document, choice: Choice) -> Benchmark:
    """The chosen benchmark. Raises SpecError where its settings do not fit what it finds, or it finds nothing."""
    try:
        return load_benchmark(choice)
    except ValidationError as error:
        _fault_settings(document, "benchmark", error)
        document.refuse()
        raise
    except (ImportError, OSError, ValueError) as error:
        document.fault(("benchmark",), str(error))
        document.refuse()
        raise


def _fault_settings(document: Document, key: str, error: ValidationError) -> None:
    for fault in error.errors():
        document.fault((key, *map(str, fault["loc"])), wanted(fault))


def unread_settings(settings: Mapping[str, Value], read: Collection[str]) -> dict[str, str]:
    """The settings of tuners and protections, by dotted path, that are not their defaults and not among those that are
    `read`, each with the reason: they would change no number."""
    faults = {}
    for path, value in settings.items():
        section = path.partition(".")[0]
        if value == field_paths().get(path):  # as a resolved file has it
            continue
        if section in (*TUNER_SECTIONS, *PROTECTING) and section != "options" and path not in read:
            beside = sorted(other for other in read if other.startswith(f"{section}."))
            hint = f"; what is read of {section}: {', '.join(beside)}{near(path, beside)}" if beside else ""
            faults[path] = f"nothing here reads it, so it would change no number{hint}; leave it out"
    return faults


def load_experiment(path: Path) -> Experiment:
    """An experiment from YAML: benchmark, model, method, then optionally order, seed and any section or dotted key.
    Raises SpecError with file, line, key and remedy."""
    document = Document(path, "an experiment in YAML, for example sweeps/experiment.yaml", NEEDED, ())
    document.refuse()
    chosen = {key: document.content.get(key) for key in NEEDED}
    settings = flatten({key: value for key, value in document.content.items() if key not in NEEDED})
    fields = field_paths()
    for key in settings:
        if not is_field(key):
            document.fault(
                tuple(key.split(".")), f"unknown key; expected a field of the experiment{near(key, list(fields))}"
            )
    for key, value in chosen.items():
        if value is None:
            document.fault((key,), "is missing; an experiment needs benchmark, model and method")
    document.refuse()
    parts = {key: choose(document, key, chosen[key]) for key in PARTS}
    document.known(("method",), "method", chosen["method"], method_names())
    if "tuner" in settings:
        document.known(("tuner",), "tuner", settings["tuner"], TUNERS.names())
    seed = settings.pop("seed", 0)
    if type(seed) is not int or not 0 <= seed < 2**63:
        document.fault(("seed",), f"expected a whole number from 0 to 2**63 - 1, got {seed!r}")
    document.refuse()
    order = _order(document, settings.pop("order", ...), parts["benchmark"])
    document.refuse()
    assert isinstance(seed, int)
    return _built(document, parts, str(chosen["method"]), order, seed, settings)


def _built(
    document: Document,
    parts: Mapping[str, Choice],
    method: str,
    order: tuple[str, ...],
    seed: int,
    settings: dict[str, Value],
) -> Experiment:
    try:
        made = build_experiment(parts["benchmark"], parts["model"], method, order, seed, settings)
    except ValidationError as error:
        for fault in error.errors():
            document.fault(tuple(map(str, fault["loc"])) or ("method",), wanted(fault))
        document.refuse()
        raise
    except ValueError as error:
        document.fault(("options",), str(error))
        document.refuse()
        raise
    for key, why in unread_settings(settings, read_paths(made)).items():
        document.fault(tuple(key.split(".")), why)
    document.refuse()
    return made


def _order(document: Document, order: object, choice: Choice) -> tuple[str, ...]:
    tasks = open_benchmark(document, choice).tasks
    if order is ...:
        return tasks
    if not isinstance(order, list) or not order:
        document.fault(
            ("order",), f"expected a list of task names, got {order!r}; without the key all tasks are learned in turn"
        )
        return tasks
    for i, task in enumerate(order):
        document.known(("order", str(i)), f"task of {kind_of(choice)}", task, tasks)
        if task in order[:i]:
            document.fault(("order", str(i)), f"{task!r} stands twice")
    return tuple(order)
