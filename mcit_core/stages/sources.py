"""The source of the modules that a stage runs, as it was when this process imported them.

Which modules those are follows from the import statements alone, walked from the parts that a stage names. A module
counts by its name and syntax tree without what only people read: comments, layout, docstrings, descriptions, help texts
and messages. A module that sets `version = "N"` counts by that text instead: its author vouches that what it computes
changes with N alone. What it imports counts all the same.

Of `mcit_core` the imported modules count one by one; of a third party the whole package, data files included, and every
other module outside the installed distributions that it imports. Installed distributions count by their version.
"""

from __future__ import annotations

import ast
import importlib
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, distribution, packages_distributions, version
from importlib.util import find_spec
from pathlib import Path

OURS = "mcit_core"
#: installed packages that check or carry values and compute none of them
CARRIERS = frozenset({"pydantic", "pydantic_core", "pyarrow", "safetensors", "yaml"})
#: a data file of a third party above so many bytes counts by its size and time of change
LARGE = 1 << 24
#: keywords whose text is for people, in calls of these names
FOR_PEOPLE = ("description", "help", "metavar", "title")
DESCRIBING = ("Field", "ArgumentParser", "add_argument", "add_parser", "add_argument_group")


class _Bare(ast.NodeTransformer):
    """Takes out what only people read."""

    def _without_messages(self, node: ast.Call) -> ast.AST:
        """A call whose texts are messages: those given to it directly, and the words of f-strings."""
        for argument in node.args:
            if isinstance(argument, ast.JoinedStr):
                argument.values = [part for part in argument.values if not isinstance(part, ast.Constant)]
            elif isinstance(argument, ast.Constant) and isinstance(argument.value, str):
                argument.value = ""
        return self.generic_visit(node)

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        docstring = isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        return None if docstring else self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> ast.AST:
        called = ast.unparse(node.func)
        if called.rpartition(".")[2] in DESCRIBING:
            node.keywords = [keyword for keyword in node.keywords if keyword.arg not in FOR_PEOPLE]
        return self._without_messages(node) if called == "warnings.warn" else self.generic_visit(node)

    def visit_Raise(self, node: ast.Raise) -> ast.AST:
        if isinstance(node.exc, ast.Call):
            self._without_messages(node.exc)
        return self.generic_visit(node)

    def visit_Assert(self, node: ast.Assert) -> ast.AST:
        node.msg = None
        return self.generic_visit(node)


def _version(tree: ast.Module) -> str | None:
    """The text that a module sets as its `version`."""
    for node in tree.body:
        if isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            named = any(isinstance(target, ast.Name) and target.id == "version" for target in targets)
            if named and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
                return node.value.value
    return None


@cache
def essence(text: str) -> str:
    """What of a module's source can change what it computes."""
    tree = ast.parse(text)
    stands_for = _version(tree)
    return f"version {stands_for}" if stands_for is not None else ast.dump(_Bare().visit(tree))


def _is_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def _statements(node: ast.AST) -> Iterator[ast.AST]:
    """Every node below, but for what only a type checker runs."""
    for child in ast.iter_child_nodes(node):
        if _is_for_types(child):
            assert isinstance(child, ast.If)
            for other in child.orelse:
                yield from (other, *_statements(other))
            continue
        yield child
        yield from _statements(child)


@cache
def imported(text: str, module: str, is_package: bool) -> frozenset[str]:
    """The modules that a source names in its imports, wherever they stand; of `from a import b` both a and a.b."""
    names: set[str] = set()
    for node in _statements(ast.parse(text)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = module.split(".") + ([""] if is_package else [])
                base = ".".join([*parts[: len(parts) - node.level], *([node.module] if node.module else [])])
            names |= {base, *(f"{base}.{alias.name}" for alias in node.names)}
    return frozenset(name.rsplit(".", up)[0] for name in names if name for up in range(name.count(".") + 1))


@cache
def _distributions() -> dict[str, list[str]]:
    return {name: list(found) for name, found in packages_distributions().items()}


@cache
def installed(package: str) -> str:
    """The version of an installed distribution."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


@dataclass(frozen=True)
class Fingerprint:
    """`code`: module of ours, or a third party's top-level package -> digest; `libraries`: distribution -> version."""

    code: dict[str, str] = field(default_factory=dict)
    libraries: dict[str, str] = field(default_factory=dict)


class Sources:
    """The sources of one process. `package` is the folder of mcit_core."""

    def __init__(self, package: Path) -> None:
        self.package = package
        self._began = time.time()
        self._first: dict[Path, str] = {}  # as a file was when it was first looked at
        self._sure: set[Path] = set()  # files that have not changed until their module was imported
        self._unclear: set[Path] = set()  # files that may have changed before their module was imported, or after
        self._lock = threading.RLock()
        self._made: dict[tuple[frozenset[str], frozenset[str]], Fingerprint] = {}

    def remember(self, top: str) -> None:
        """Look at all source files of a top-level package or module, before it is imported."""
        with self._lock:
            for path in self._files(top).values():
                self._texts(path, None)

    def fingerprint(self, roots: Iterable[str], leaving_out: Iterable[str] = ()) -> Fingerprint:
        """Of the modules `roots` and all that they import, but for the modules `leaving_out` and what only they import.
        The same for as long as the process lives. Raises ModuleNotFoundError for a root without a source."""
        asked = frozenset(roots), frozenset(leaving_out)
        with self._lock:
            if asked not in self._made:
                # what is loaded later could have been edited by then: load all of it, then see what was loaded
                for name in self._fingerprint(*asked).code.keys() | asked[0]:
                    if name in asked[0] or name.partition(".")[0] == OURS:
                        with suppress(ImportError):  # it is not installed here, so this process does not run it
                            importlib.import_module(name)
                self._made[asked] = self._fingerprint(*asked)
            return self._made[asked]

    def _fingerprint(self, roots: frozenset[str], leaving_out: frozenset[str]) -> Fingerprint:
        ours: dict[str, str] = {}
        theirs: dict[str, str] = {}
        libraries: set[str] = set()
        own = {name for root in roots for name in _distributions().get(root.partition(".")[0], ())}
        waiting = sorted(roots)
        while waiting:
            name = waiting.pop()
            top = name.partition(".")[0]
            if name in leaving_out or name in ours or top in theirs or top in sys.stdlib_module_names:
                continue
            if top == OURS:
                path = self._file(name)
                if path is None:
                    if name in roots:
                        raise ModuleNotFoundError(f"there is no source of {name} in {self.package}")
                    # a name that a module defines; those that the package itself gives come from elsewhere
                    given = vars(sys.modules.get(OURS, sys)).get("_NAMES", {})
                    waiting += [given[name.partition(".")[2]]] if name.partition(".")[2] in given else []
                    continue
                texts = self._texts(path, name)
                ours[name] = _digest([essence(text) for text in texts])
                waiting += imported(texts[-1], name, path.name == "__init__.py")
                continue
            if name not in roots and _is_installed(top) and not own & {*_distributions().get(top, ())}:
                libraries |= {top} - CARRIERS
                continue
            files = self._files(top)
            if not files:
                if name in roots:
                    raise ModuleNotFoundError(f"there is no source of {name}")
                continue
            parts = []
            for module, path in files.items():
                texts = self._texts(path, module)
                parts += [module, *(essence(text) for text in texts)]
                waiting += imported(texts[-1], module, path.name == "__init__.py")
            theirs[top] = _digest([*parts, *_data_of(files)])
        versions = {name: installed(name) for top in libraries for name in _distributions().get(top, [top])}
        return Fingerprint(dict(sorted({**ours, **theirs}.items())), dict(sorted(versions.items())))

    def _file(self, module: str) -> Path | None:
        """The source file of a module of mcit_core."""
        inner = module.split(".")[1:]
        places = (self.package.joinpath(*inner, "__init__.py"), self.package.joinpath(*inner).with_suffix(".py"))
        return next((place for place in places if place.is_file()), None)

    def _files(self, top: str) -> dict[str, Path]:
        """Every source file of a top-level package or module, by module name; none where there is no source."""
        if top == OURS:
            roots = [self.package]
        else:
            try:
                found = find_spec(top)
            except (ImportError, ValueError):
                return {}
            if found is None:
                return {}
            roots = [Path(place) for place in found.submodule_search_locations or []]
            if not roots:
                return {top: Path(found.origin)} if found.origin and found.origin.endswith(".py") else {}
        files = {}
        for root in roots:
            for path in sorted(root.rglob("*.py")):
                parts = path.relative_to(root).with_suffix("").parts
                files[".".join([top, *(parts[:-1] if parts[-1] == "__init__" else parts)])] = path
        return files

    def _texts(self, path: Path, module: str | None) -> tuple[str, ...]:
        """What a file's text may have been when its module was imported: one text, or several where it was edited
        between our first look and the import. A stage that one of several made is nobody else's."""
        now = path.read_text(encoding="utf-8")
        seen = path in self._first
        first = self._first.setdefault(path, now)
        if path in self._sure:
            return (first,)
        if module in sys.modules and not seen and path.stat().st_mtime > self._began:
            self._unclear.add(path)
        if path in self._unclear:
            return (first, "edited = 'while this process ran, before the import or after it'\n")
        if now != first:
            return (first, now)
        if module in sys.modules:
            self._sure.add(path)
        return (first,)


@cache
def _is_in_development(package: str) -> bool:
    """Whether an installed distribution is a link to a folder in which somebody works."""
    return '"editable": true' in (distribution(package).read_text("direct_url.json") or "")


def _is_installed(top: str) -> bool:
    """Whether a top-level package belongs to an installed distribution, other than one in development mode, or is
    nowhere."""
    names = _distributions().get(top, [])
    if names:
        return not any(map(_is_in_development, names))
    try:
        found = find_spec(top)
    except (ImportError, ValueError):
        return True
    return found is None or found.origin in ("built-in", "frozen")


def _data_of(files: dict[str, Path]) -> list[str]:
    """Names and contents of the files that lie beside a package's sources."""
    folders = {path.parent for path in files.values() if path.name == "__init__.py"}
    roots = [folder for folder in folders if folder.parent not in folders]
    parts = []
    for root in sorted(roots):
        for path in sorted(root.rglob("*")):
            kept = not any(part.startswith((".", "__pycache__")) for part in path.relative_to(root).parts)
            if kept and path.suffix != ".py" and path.is_file():
                size, changed = path.stat().st_size, path.stat().st_mtime_ns
                content = f"{size} {changed}" if size > LARGE else sha256(path.read_bytes()).hexdigest()
                parts += [path.relative_to(root).as_posix(), content]
    return parts


def _digest(parts: list[str]) -> str:
    total = sha256()
    for part in parts:
        total.update(part.encode())
        total.update(b"\0")
    return total.hexdigest()[:32]


#: of this process; `mcit_core` remembers its own modules here as it is imported
SOURCES = Sources(Path(__file__).parent.parent)
