"""`--set KEY=VALUE` on top of a sweep file."""

from __future__ import annotations

import yaml

from mcit_core.config import is_field
from mcit_core.experiment_file import PARTS
from mcit_core.registry import near
from mcit_core.yaml_document import Document, SpecError, oddity


def override(document: Document, assignments: list[str], top: tuple[str, ...], settable: list[str]) -> None:
    """Apply `--set KEY=VALUE`: top-level keys, parts of a section (axes.KEY=[...]), and experiment fields, which go to
    `base`. Raises SpecError for a key that does not exist or that the file sweeps."""
    content = document.content
    for assignment in assignments:
        key, sign, raw = assignment.partition("=")
        if not sign or not key:
            raise SpecError(f"--set {assignment}: expected KEY=VALUE, for example --set train.steps=20")
        try:
            node = yaml.compose(raw, Loader=yaml.SafeLoader)
            odd = None if node is None else oddity(node)
            if odd:
                raise SpecError(f"--set {assignment}: {odd[1]}")
            value = yaml.safe_load(raw)
        except (yaml.YAMLError, ValueError, RecursionError):
            raise SpecError(f"--set {assignment}: the value is not YAML") from None
        head, _, rest = key.partition(".")
        if key in top:
            content[key] = value
            document.origins[(key,)] = assignment
            continue
        swept = content.get("axes")
        if isinstance(swept, dict) and key in swept:
            raise SpecError(f"--set {assignment}: {key} is swept by this file; use --set 'axes.{key}=[{raw}]'")
        if head in PARTS and rest:
            chosen = content.get(head)
            content[head] = {**(chosen if isinstance(chosen, dict) else {"kind": chosen}), rest: value}
            document.origins[(head, rest)] = assignment
            continue
        if head not in ("axes", "base", "halving", "resources", "tracking"):
            if key not in settable and not (rest and is_field(key)):
                raise SpecError(f"--set {assignment}: there is no key {key!r}{near(key, [*settable, *top])}")
            head, rest = "base", key
        section = content.get(head)
        section = dict(section) if isinstance(section, dict) else {}
        if head == "base" and "." in rest:  # the file may have written it nested
            outer, _, inner = rest.partition(".")
            if isinstance(section.get(outer), dict):
                section[outer] = {k: v for k, v in section[outer].items() if k != inner}
        section[rest] = value
        content[head] = section
        document.origins[(head, *(rest.split(".") if head == "base" else (rest,)))] = assignment
