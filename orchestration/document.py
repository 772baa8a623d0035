"""A YAML file that knows on which line each of its keys stands, and collects what is wrong with it."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml


class SpecError(Exception):
    """The sweep is refused before anything runs; `str(error)` is the whole message."""


def near(name: object, valid: Sequence[str]) -> str:
    close = get_close_matches(str(name), valid, n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""


class Document:
    """The content of a YAML mapping. Raises SpecError where there is none to be read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines: dict[tuple[str, ...], int] = {}
        self.origins: dict[tuple[str, ...], str] = {}  # keys that came from the command line
        self.faults: list[str] = []
        text = self._read()
        try:
            node = yaml.compose(text, Loader=yaml.SafeLoader)
            content = yaml.safe_load(text)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            raise SpecError(f"{path}:{mark.line + 1 if mark else 1}: is not YAML: {error.problem}") from None
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            raise SpecError(f"{path}:1: is not YAML: {' '.join(str(error).split())}") from None
        if node is None or content is None:
            raise SpecError(f"{path}:1: is empty; expected a mapping with at least name, benchmark, model and method")
        if not isinstance(content, dict):
            raise SpecError(
                f"{path}:1: expected a mapping of keys (name, benchmark, ...), got {type(content).__name__}"
            )
        self.content: dict[str, Any] = content
        self._walk(node, ())

    def _read(self) -> str:
        path = self.path
        if path.is_dir():
            raise SpecError(f"{path}: is a directory; expected a sweep file in YAML, for example sweeps/threshold.yaml")
        try:
            return path.read_bytes().decode("utf-8")
        except FileNotFoundError:
            beside = [str(p) for p in sorted(path.parent.glob("*.y*ml"))] if path.parent.is_dir() else []
            raise SpecError(f"{path}: no such file; expected a sweep file in YAML{near(path, beside)}") from None
        except OSError as error:
            raise SpecError(f"{path}: cannot be read: {error.strerror}") from None
        except UnicodeDecodeError as error:
            raise SpecError(
                f"{path}: is not text (byte {error.start} is not UTF-8); expected a sweep file in YAML"
            ) from None

    def _walk(self, node: yaml.Node, path: tuple[str, ...]) -> None:
        if isinstance(node, yaml.MappingNode):
            seen: set[str] = set()
            for key, value in node.value:
                name, line = str(key.value), key.start_mark.line + 1
                if name in seen:
                    self.faults.append(f"{self.path}:{line}: {'.'.join((*path, name))}: stands twice; keep one")
                seen.add(name)
                self._place(path, name, line, value)
        elif isinstance(node, yaml.SequenceNode):
            for i, item in enumerate(node.value):
                self._place(path, str(i), item.start_mark.line + 1, item)

    def _place(self, path: tuple[str, ...], name: str, line: int, value: yaml.Node) -> None:
        self.lines[(*path, name)] = line
        # a dotted key of a setting is also found by its parts: base: {pool.size: 20}
        if path == ("base",):
            self.lines[(*path, *name.split("."))] = line
        self._walk(value, (*path, name))

    def fault(self, keys: tuple[str, ...], message: str) -> None:
        """Note a fault at `keys`; the line is that of the nearest enclosing key that the file has."""
        shown = ".".join(keys[1:] if keys[0] == "base" and len(keys) > 1 else keys)
        at = keys
        while at and at not in self.lines and at not in self.origins:
            at = at[:-1]
        if at in self.origins:
            place = f"--set {self.origins[at]}"
        else:
            place = f"{self.path}:{self.lines[at]}" if at else f"{self.path}:1"
        self.faults.append(f"{place}: {shown}: {message}")

    def refuse(self) -> None:
        """Raise SpecError if a fault was noted."""
        if self.faults:
            raise SpecError("\n".join(dict.fromkeys(self.faults)))


def override(document: Document, assignments: list[str], top: tuple[str, ...], settable: list[str]) -> None:
    """Apply `--set KEY=VALUE`: top-level keys, parts of a section (axes.KEY=[...]), and experiment fields, which go to
    `base`. Raises SpecError for a key that does not exist or that the file sweeps."""
    content = document.content
    for assignment in assignments:
        key, sign, raw = assignment.partition("=")
        if not sign or not key:
            raise SpecError(f"--set {assignment}: expected KEY=VALUE, for example --set train.steps=20")
        try:
            value = yaml.safe_load(raw)
        except (yaml.YAMLError, ValueError):
            raise SpecError(f"--set {assignment}: the value is not YAML") from None
        head, _, rest = key.partition(".")
        if key in top:
            content[key] = value
            document.origins[(key,)] = assignment
            continue
        if head not in ("axes", "base", "resources", "tracking"):
            if key not in settable:
                raise SpecError(f"--set {assignment}: there is no key {key!r}{near(key, [*settable, *top])}")
            if isinstance(content.get("axes"), dict) and key in content["axes"]:
                raise SpecError(f"--set {assignment}: {key} is swept by this file; use --set 'axes.{key}=[{raw}]'")
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
