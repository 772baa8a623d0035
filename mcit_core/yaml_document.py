"""A YAML file that knows on which line each of its keys stands, and collects what is wrong with it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from mcit_core.registry import near

#: values in one file, aliases counted at every use; above it a file is a mistake or a trap
LARGEST = 100_000


#: numbers that YAML 1.1 and 1.2 read differently, or one of them as text: 010, 1_000, 1:30
AMBIGUOUS = re.compile(r"[-+]?(?:0\d[\d_]*(?:\.\d*)?|\d[\d_]*_[\d_]*(?:\.[\d_]*)?|\d+(?::[0-5]?\d)+(?:\.\d*)?)")
#: the core schema of YAML 1.2: yes, no, on and off are text, 1e-3 is a number
CORE = {
    "null": (r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    "bool": (r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    "int": (r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    "float": (
        r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
    "merge": (r"<<", ["<"]),
}


class _Loader(yaml.SafeLoader):
    """Plain values by the core schema of YAML 1.2."""


class _Dumper(yaml.SafeDumper):
    """Quotes what that would read as something else."""


for _class in (_Loader, _Dumper):
    _class.yaml_implicit_resolvers = {}
    for _kind, (_pattern, _first) in CORE.items():
        _class.add_implicit_resolver(f"tag:yaml.org,2002:{_kind}", re.compile(rf"^(?:{_pattern})$"), _first)
_Dumper.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(f"^(?:{AMBIGUOUS.pattern})$"), list("-+0123456789"))


def load_yaml(text: str) -> Any:
    """Raises yaml.YAMLError, ValueError or RecursionError for what is no YAML."""
    return yaml.load(text, Loader=_Loader)


def dump_yaml(value: object) -> str:
    """What `load_yaml` reads as `value`, keys in their order."""
    text: str = yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True)
    return text


def compose_yaml(text: str) -> yaml.Node | None:
    """The tree of a text, None where it is empty. Raises as `load_yaml`."""
    return yaml.compose(text, Loader=_Loader)


class SpecError(Exception):
    """Refused before anything runs; `str(error)` is the whole message."""


def wanted(error: Any) -> str:
    """A fault of pydantic's in our words: what was expected, what was got."""
    message = str(error["msg"]).removeprefix("Value error, ")
    if error["type"] == "value_error":
        return message
    if error["type"] == "missing":
        return "is missing, and has no default"
    got = repr(error["input"])
    return f"expected {message.removeprefix('Input should be ')}, got {got if len(got) < 60 else got[:57] + '...'}"


def oddity(node: yaml.Node) -> tuple[int, str] | None:
    """The first thing in a YAML tree that no experiment can use: (its line, what it is), or None."""
    waiting: list[tuple[yaml.Node, frozenset[int]]] = [(node, frozenset())]
    seen = 0
    while waiting:
        here, above = waiting.pop()
        seen += 1
        line = here.start_mark.line + 1
        if id(here) in above:
            return line, "this anchor contains itself; write the values out"
        if seen > LARGEST:
            return line, f"holds more than {LARGEST:,} values (an alias counts at every use)"
        if isinstance(here, yaml.CollectionNode):
            above |= {id(here)}
        if isinstance(here, yaml.ScalarNode) and here.style is None and AMBIGUOUS.fullmatch(here.value):
            return line, f"{here.value} is read as one number or another; write the digits alone, or quote it as text"
        if isinstance(here, yaml.SequenceNode):
            waiting += [(item, above) for item in here.value]
        elif isinstance(here, yaml.MappingNode):
            for key, value in here.value:
                if key.tag not in ("tag:yaml.org,2002:str", "tag:yaml.org,2002:merge"):
                    shown = f" {key.value!r}" if isinstance(key, yaml.ScalarNode) else ""
                    kind = key.tag.rpartition(":")[2]
                    return key.start_mark.line + 1, f"the key{shown} is of YAML type {kind}; expected text (quote it)"
                waiting.append((value, above))
    return None


class Document:
    """The content of a YAML mapping at `path`. `what` says what was expected there and `needed` its necessary keys;
    `dotted` is the section whose keys may be written `a: {b: 1}` or `a.b: 1` (empty: the whole file). Raises SpecError
    where there is no mapping to be read."""

    def __init__(self, path: Path, what: str, needed: Sequence[str], dotted: tuple[str, ...]) -> None:
        self.path, self.what, self.dotted = path, what, dotted
        self.lines: dict[tuple[str, ...], int] = {}
        self.origins: dict[tuple[str, ...], str] = {}  # keys that came from the command line
        self.faults: list[str] = []
        self._spellings: dict[str, tuple[str, ...]] = {}
        text = self._read()
        try:
            node = compose_yaml(text)
            odd = None if node is None else oddity(node)
            if odd:
                raise SpecError(f"{path}:{odd[0]}: {odd[1]}")
            content = load_yaml(text)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            raise SpecError(f"{path}:{mark.line + 1 if mark else 1}: is not YAML: {error.problem}") from None
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            raise SpecError(f"{path}:1: is not YAML: {' '.join(str(error).split())}") from None
        keys = ", ".join(needed[:-1]) + f" and {needed[-1]}"
        if node is None or content is None:
            raise SpecError(f"{path}:1: is empty; expected a mapping with at least {keys}")
        if not isinstance(content, dict):
            raise SpecError(f"{path}:1: expected a mapping with at least {keys}, got {type(content).__name__}")
        self.content: dict[str, Any] = content
        self._walk(node, ())

    def _read(self) -> str:
        path = self.path
        if path.is_dir():
            raise SpecError(f"{path}: is a directory; expected {self.what}")
        try:
            return path.read_bytes().decode("utf-8")
        except FileNotFoundError:
            beside = [str(p) for p in sorted(path.parent.glob("*.y*ml"))] if path.parent.is_dir() else []
            raise SpecError(f"{path}: no such file; expected {self.what}{near(path, beside)}") from None
        except OSError as error:
            raise SpecError(f"{path}: cannot be read: {error.strerror}") from None
        except UnicodeDecodeError as error:
            raise SpecError(f"{path}: is not text (byte {error.start} is not UTF-8); expected {self.what}") from None

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
        keys = (*path, name)
        self.lines[keys] = line
        depth = len(self.dotted)
        if len(keys) > depth and keys[:depth] == self.dotted:
            # a dotted key of a setting is also found by its parts: base: {pool.size: 20}
            setting = ".".join(keys[depth:])
            self.lines[(*self.dotted, *setting.split("."))] = line
            if not isinstance(value, yaml.MappingNode) and self._spellings.setdefault(setting, keys) != keys:
                self.faults.append(f"{self.path}:{line}: {setting}: stands twice, dotted and nested; keep one")
        self._walk(value, keys)

    def fault(self, keys: tuple[str, ...], message: str) -> None:
        """Note a fault at `keys`; the line is that of the nearest enclosing key that the file has."""
        depth = len(self.dotted)
        shown = ".".join(keys[depth:] if keys[:depth] == self.dotted and len(keys) > depth else keys)
        at = keys
        while at and at not in self.lines and at not in self.origins:
            at = at[:-1]
        if at in self.origins:
            place = f"--set {self.origins[at]}"
        else:
            place = f"{self.path}:{self.lines[at]}" if at else f"{self.path}:1"
        self.faults.append(f"{place}: {shown}: {message}")

    def known(self, keys: tuple[str, ...], what: str, value: object, valid: Sequence[str]) -> None:
        """Note a fault where `value` is none of the `valid` names."""
        if value not in valid:
            expected = f"expected one of {', '.join(valid)}{near(value, valid)}"
            self.fault(keys, f"there is no {what} {value!r}; {expected}")

    def refuse(self) -> None:
        """Raise SpecError if a fault was noted."""
        if self.faults:
            raise SpecError("\n".join(dict.fromkeys(self.faults)))
