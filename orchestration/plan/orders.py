"""The orders of a sweep: the order axis of the sweep file, checked and carried out."""

from __future__ import annotations

import itertools
import random
from math import factorial
from typing import Any

from mcit_core.registry import near
from mcit_core.yaml_document import Document
from orchestration.plan.spec import Order


def make_orders(tasks: Order, axis: dict[str, Any]) -> tuple[Order, ...]:
    """The orders of an order axis. latin_square: as many orders as tasks, each task once at each position.
    Raises ValueError where it asks for the impossible."""
    kind, n = axis["kind"], len(tasks)
    if kind == "all":
        if n > 7:
            raise ValueError(f"all orders of {n} tasks are {factorial(n)}; use kind sample, or fewer tasks")
        return tuple(itertools.permutations(tasks))
    if kind == "reverse":
        return (tasks, tasks[::-1]) if n > 1 else (tasks,)
    if kind == "latin_square":
        return tuple(tasks[i:] + tasks[:i] for i in range(n))
    if axis["n"] > factorial(n):
        raise ValueError(f"{n} tasks have only {factorial(n)} orders, {axis['n']} were asked for")
    rng, drawn = random.Random(axis.get("seed", 0)), dict[Order, None]()
    while len(drawn) < axis["n"]:
        drawn[tuple(rng.sample(tasks, n))] = None
    return tuple(drawn)


#: what each kind of order axis takes beside `kind`
ORDER_KINDS: dict[str, set[str]] = {
    "all": set(),
    "sample": {"n", "seed"},
    "reverse": set(),
    "latin_square": set(),
    "explicit": {"orders", "drawn"},
}


def are_drawn(axis: object) -> bool:
    """Whether an order axis is a random draw from all orders: a sample, or listed orders that are said to be one."""
    return isinstance(axis, dict) and (axis.get("kind") == "sample" or axis.get("drawn") is True)


def order_axis(document: Document, axis: Any, tasks: Order) -> tuple[Order, ...]:
    keys = ("axes", "order")
    if isinstance(axis, str):
        axis = {"kind": axis}
    if isinstance(axis, list):
        return _explicit_orders(document, keys, axis, tasks)
    kind = axis.get("kind") if isinstance(axis, dict) else axis
    if not isinstance(kind, str) or kind not in ORDER_KINDS:
        document.fault(
            keys,
            f"expected a list of orders or {{kind: {' | '.join(ORDER_KINDS)}}}, got {kind!r}"
            + near(kind, list(ORDER_KINDS)),
        )
        return (tasks,)
    valid = ["kind", *sorted(ORDER_KINDS[kind])]
    for name in axis:
        if name not in valid:
            document.fault((*keys, str(name)), f"unknown key; kind {kind} takes {', '.join(valid)}{near(name, valid)}")
    if kind == "explicit":
        if type(axis.get("drawn", False)) is not bool:
            document.fault((*keys, "drawn"), f"expected true or false, got {axis['drawn']!r}")
        return _explicit_orders(document, (*keys, "orders"), axis.get("orders"), tasks)
    for name, least in (("n", 1), ("seed", 0)) if kind == "sample" else ():
        value = axis.get(name, 0)
        if type(value) is not int or value < least:
            document.fault((*keys, name), f"expected a whole number from {least}, got {axis.get(name)!r}")
            return (tasks,)
    try:
        return make_orders(tasks, axis)
    except ValueError as error:
        document.fault(keys, str(error))
        return (tasks,)


def _explicit_orders(document: Document, keys: tuple[str, ...], listed: Any, tasks: Order) -> tuple[Order, ...]:
    if not isinstance(listed, list) or not listed or not all(isinstance(order, list) for order in listed):
        document.fault(keys, f"expected a list of orders, each a list of task names, got {listed!r}")
        return (tasks,)
    for i, order in enumerate(listed):
        unknown = [task for task in order if task not in tasks]
        missing = [task for task in tasks if task not in order]
        if unknown:
            document.fault(
                (*keys, str(i)),
                f"{unknown[0]!r} is no task of this sweep; expected each of "
                f"{', '.join(tasks)} once{near(unknown[0], tasks)}",
            )
        elif missing or len(order) != len(tasks):
            what = f"{', '.join(missing)} missing" if missing else "a task stands twice"
            document.fault(
                (*keys, str(i)), f"is no order of this sweep's tasks, {what}; expected each of {', '.join(tasks)} once"
            )
        elif order in listed[:i]:
            document.fault((*keys, str(i)), "the same order stands twice")
    return tuple(tuple(order) for order in listed)
