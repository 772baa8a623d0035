"""The axes of a sweep file: lists of values, ranges of numbers, and conditions on which they apply."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pydantic import ValidationError

from mcit_core.choices import Choice, checked_choice, kind_of, options_of
from mcit_core.config import Value, check_setting, field_paths, is_field
from mcit_core.experiment_file import PARTS
from mcit_core.methods import method_names
from mcit_core.registry import TUNERS, near
from mcit_core.yaml_document import Document, wanted
from orchestration.plan.orders import order_axis
from orchestration.plan.spec import Order, Range

#: experiment fields that a sweep sets by keys of its own
OWN_KEYS = {"benchmark", "model", "method", "order", "seed", "protocol"}
SETTABLE = sorted(field_paths().keys() - OWN_KEYS - {"train.processes"})
#: what an axis that is no list has
RANGE_KEYS, LISTED_KEYS = ("low", "high", "log", "step", "when"), ("values", "when")
FORM = "expected a list of values, {low, high, log, step} or {values: [...]}, the last two with `when` if need be"


@dataclass(frozen=True)
class Axes:
    """What a sweep file's axes say: values or a range by field, conditions by field, and the orders."""

    values: dict[str, list[Value] | Range]
    orders: tuple[Order, ...]
    when: dict[str, dict[str, list[Value]]] = field(default_factory=dict)


def read_axes(
    document: Document, axes: Mapping[str, Value], tasks: Order, base: Mapping[str, Value], choices: dict[str, Choice]
) -> Axes:
    """The axes of a file, with every fault noted in `document`."""
    found = Axes({}, (tasks,))
    for name, given in axes.items():
        keys = ("axes", name)
        if name == "order":
            found = Axes(found.values, order_axis(document, given, tasks), found.when)
        elif name in ("seed", "seeds"):
            document.fault(keys, "is no axis; seeds are set by the top-level key seeds")
        elif name != "method" and not _is_of_part(name) and (name in OWN_KEYS or not is_field(name)):
            document.fault(
                keys,
                f"unknown key; expected a field of the experiment, method or order"
                f"{near(name, [*SETTABLE, 'method', 'order'])}",
            )
        elif name in base:
            document.fault(keys, "is swept and also set in base; keep one")
        else:
            values = _values(document, keys, given)
            if values is not None:
                found.values[name] = values
                _check_values(document, keys, name, values, choices)
            if isinstance(given, dict) and given.get("when") is not None:
                found.when[name] = _conditions(document, (*keys, "when"), given["when"])
    if "method" in found.when:
        document.fault(("axes", "method", "when"), "a trial has a method in any case; leave the condition out")
    for name, conditions in found.when.items():
        _check_conditions(document, name, conditions, found.values)
    return found


def _values(document: Document, keys: tuple[str, ...], given: Value) -> list[Value] | Range | None:
    """The values of an axis, None where that cannot be told."""
    if isinstance(given, dict) and given:
        ranged = not given.keys() & {"values"}
        valid = RANGE_KEYS if ranged else LISTED_KEYS
        unknown = [name for name in given if name not in valid]
        for name in unknown:
            document.fault((*keys, name), f"unknown key; expected {', '.join(valid)}{near(name, valid)}")
        if unknown:
            return None
        return _range(document, keys, given) if ranged else _listed(document, (*keys, "values"), given["values"])
    if isinstance(given, list):
        return _listed(document, keys, given)
    document.fault(keys, f"{FORM}, got {given!r}")
    return None


def _listed(document: Document, keys: tuple[str, ...], given: Value) -> list[Value] | None:
    if not isinstance(given, list) or not given:
        document.fault(keys, f"expected a list of at least one value, got {given!r}")
        return None
    return given


def _range(document: Document, keys: tuple[str, ...], given: Mapping[str, Value]) -> Range | None:
    numbers: dict[str, int | float] = {}
    for name in ("low", "high", *(["step"] if given.get("step") is not None else [])):
        number = given.get(name)
        if isinstance(number, bool) or not isinstance(number, int | float):
            document.fault((*keys, name) if name in given else keys, f"{name}: expected a number, got {number!r}")
            return None
        numbers[name] = number
    low, high, step, log = numbers["low"], numbers["high"], numbers.get("step"), given.get("log", False)
    if not isinstance(log, bool):
        document.fault((*keys, "log"), f"expected true or false, got {log!r}")
    elif not low < high:
        document.fault(keys, f"expected low below high, got {low:g} and {high:g}")
    elif log and low <= 0:
        document.fault((*keys, "low"), f"a range on a logarithmic scale begins above 0, got {low:g}")
    elif step is not None and log:
        document.fault((*keys, "step"), "a range on a logarithmic scale has no step; keep one of them")
    elif step is not None and not 0 < step <= high - low:
        document.fault((*keys, "step"), f"expected a number above 0 and at most {high - low:g}, got {step:g}")
    else:
        found = Range(low, high, log, step)
        if step is not None and abs(found.number((found.count or 1) - 1) - high) > 1e-9 * max(abs(low), abs(high)):
            last = low + int((high - low) / step) * step
            document.fault((*keys, "step"), f"steps of {step:g} from {low:g} miss {high:g}; set high: {last:g}")
            return None
        return found
    return None


def _check_values(
    document: Document, keys: tuple[str, ...], name: str, values: list[Value] | Range, choices: dict[str, Choice]
) -> None:
    """Each value of an axis by itself; of a range, its ends."""
    if isinstance(values, Range):
        if name == "method":
            document.fault(keys, "expected a list of methods")
            return
        for end, number in (("low", values.low), ("high", values.high)):
            if _is_of_part(name):
                _check_option(document, (*keys, end), name, number, choices)
            else:
                check_value(document, (*keys, end), name, number)
        return
    listed = (*keys, "values") if (*keys, "values") in document.lines else keys
    for i, value in enumerate(values):
        if _is_of_part(name):
            _check_option(document, listed, name, value, choices)
        else:
            check_value(document, (*listed, str(i)), name, value)
        if value in values[:i]:
            document.fault((*listed, str(i)), f"{value!r} stands twice")


def _conditions(document: Document, keys: tuple[str, ...], given: Value) -> dict[str, list[Value]]:
    if not isinstance(given, dict) or not given:
        document.fault(keys, f"expected {{AXIS: VALUE}} or {{AXIS: [VALUES]}}, got {given!r}")
        return {}
    return {name: value if isinstance(value, list) else [value] for name, value in given.items()}


def _check_conditions(
    document: Document, name: str, conditions: Mapping[str, list[Value]], axes: Mapping[str, list[Value] | Range]
) -> None:
    for other, values in conditions.items():
        keys = ("axes", name, "when", other)
        found = axes.get(other)
        if found is None or other == name:
            others = [axis for axis in axes if axis != name]
            document.fault(keys, f"expected another axis, one of {', '.join(others)}{near(other, others)}")
            continue
        if isinstance(found, Range) and found.count is None:
            document.fault(keys, f"{other} hardly ever takes one number twice; give it a step, or list its values")
            continue
        for value in values:
            if not (found.holds(value) if isinstance(found, Range) else value in found):
                document.fault(keys, f"{value!r} is no value of {other}, so that {name} would never apply")


def check_value(document: Document, keys: tuple[str, ...], field: str, value: Value) -> None:
    """One value of one field by itself; how fields fit together is checked with whole points."""
    if field == "method":
        document.known(keys, "method", value, method_names())
    elif field == "train.processes":
        document.fault(keys, "is set by resources.processes, since a trial's place is made for them; leave it out here")
    elif field == "tuner":
        document.known(keys, "tuner", value, TUNERS.names())
    elif field in OWN_KEYS or not is_field(field):
        document.fault(keys, f"unknown key {field!r}; expected a field of the experiment{near(field, SETTABLE)}")
    elif not field.startswith("options"):  # those the tuner checks by itself
        try:
            check_setting(field, value)
        except ValidationError as error:
            document.fault(keys, wanted(error.errors()[0]))


def _is_of_part(field: str) -> bool:
    """Whether an axis is a setting of the model or the benchmark, as model.path is."""
    head, dot, _ = field.partition(".")
    return bool(dot) and head in PARTS


def _check_option(
    document: Document, keys: tuple[str, ...], field: str, value: Value, choices: dict[str, Choice]
) -> None:
    head, _, leaf = field.partition(".")
    if leaf == "kind" or leaf in options_of(choices[head]):
        why = "is also set there; keep one" if leaf != "kind" else f"is no axis; {head} is chosen at the top"
        document.fault(keys, why)
        return
    try:
        checked_choice(PARTS[head], {"kind": kind_of(choices[head]), **options_of(choices[head]), leaf: value})
    except ValidationError as error:
        document.fault(keys, wanted(error.errors()[0]))
