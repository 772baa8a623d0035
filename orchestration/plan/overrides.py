"""`--set KEY=VALUE` on top of a sweep file."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import yaml

from mcit_core.config import flatten, is_field
from mcit_core.experiment_file import PARTS
from mcit_core.registry import near
from mcit_core.yaml_document import Document, SpecError, compose_yaml, load_yaml, oddity
from orchestration.plan.spec import GRID


def override(document: Document, assignments: list[str], top: tuple[str, ...], settable: list[str]) -> None:
    """Apply `--set KEY=VALUE`: top-level keys, parts of a section (axes.KEY=[...]), and experiment fields, which go to
    `base`. Raises SpecError for a key that does not exist or that the file sweeps."""
    content = document.content
    for assignment in assignments:
        key, sign, raw = assignment.partition("=")
        if not sign or not key:
            raise SpecError(f"--set {assignment}: expected KEY=VALUE, for example --set train.steps=20")
        if not raw.strip():
            raise SpecError(
                f"--set {assignment}: the value is empty, as of a variable that is not set; write null or ''"
            )
        value = _value(assignment, raw)
        head, _, rest = key.partition(".")
        if key in top:
            content[key] = value
            document.origins[(key,)] = assignment
            continue
        swept = content.get("axes")
        if isinstance(swept, dict) and key in swept:
            raise SpecError(f"--set {assignment}: {key} is swept by this file; use --set 'axes.{key}=[{raw}]'")
        if head in (*PARTS, "search") and rest:
            chosen = content.get(head, GRID if head == "search" else None)
            content[head] = {**(chosen if isinstance(chosen, dict) else {"kind": chosen}), rest: value}
            document.origins[(head, rest)] = assignment
            continue
        if head not in ("axes", "base", "halving", "robust", "resources", "tracking"):
            if key not in settable and not (rest and is_field(key)) and key not in sections(settable):
                raise SpecError(f"--set {assignment}: there is no key {key!r}{near(key, [*settable, *top])}")
            head, rest = "base", key
        section = content.get(head)
        section = dict(section) if isinstance(section, dict) else {}
        if head == "base":
            for path, leaf in flatten({rest: value}).items():
                section = {**_without(section, path), path: leaf}
                document.origins[("base", *path.split("."))] = assignment
        else:
            section[rest] = value
            document.origins[(head, rest)] = assignment
        content[head] = section
        base = content.get("base")
        if head == "axes" and isinstance(base, dict):  # an axis takes the place of one value
            content["base"] = _without(base, rest)


def sections(paths: Iterable[str]) -> set[str]:
    """What stands before a dot in dotted paths."""
    return {head for head, dot, _ in (path.rpartition(".") for path in paths) if dot}


def _value(assignment: str, raw: str) -> Any:
    try:
        node = compose_yaml(raw)
        odd = None if node is None else oddity(node)
        if odd:
            raise SpecError(f"--set {assignment}: {odd[1]}")
        return load_yaml(raw)
    except (yaml.YAMLError, ValueError, RecursionError):
        raise SpecError(f"--set {assignment}: the value is not YAML") from None


def _without(section: dict[str, Any], path: str) -> dict[str, Any]:
    """A section of a file without a setting, however it is written: a.b: 1 or a: {b: 1}."""
    kept = {}
    for name, value in section.items():
        if name == path or name.startswith(f"{path}."):
            continue
        if isinstance(value, dict) and path.startswith(f"{name}."):
            value = _without(value, path.removeprefix(f"{name}."))
        kept[name] = value
    return kept
