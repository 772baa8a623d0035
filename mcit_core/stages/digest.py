"""Digests of JSON-able values and fingerprints of code; imports nothing heavy."""

from __future__ import annotations

import ast
import hashlib
import json
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import mcit_core

#: the folder of mcit_core, wherever this file stands in it
PACKAGE = Path(mcit_core.__file__).parent


def digest(value: Any) -> str:
    """SHA-256 of a JSON-able value; equal values have equal digests."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


class _Bare(ast.NodeTransformer):
    """Takes out what a person reads and no stage runs: docstrings and the descriptions of fields."""

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        return None if isinstance(node.value, ast.Constant) and isinstance(node.value.value, str) else node

    def visit_Call(self, node: ast.Call) -> ast.AST:
        node.keywords = [keyword for keyword in node.keywords if keyword.arg != "description"]
        return self.generic_visit(node)


def _tree(path: Path) -> str:
    return ast.dump(_Bare().visit(ast.parse(path.read_text(encoding="utf-8"))))


def _files(module: str) -> list[Path]:
    """The file of a module of mcit_core; of a third party's, those of its whole package. None where there is none."""
    top, *inner = module.split(".")
    if top == "mcit_core":
        places = (PACKAGE.joinpath(*inner).with_suffix(".py"), PACKAGE.joinpath(*inner, "__init__.py"))
        return [file for file in places if file.is_file()][:1]
    found = find_spec(top)
    roots = [Path(place) for place in found.submodule_search_locations or []] if found else []
    if found and not roots and found.origin and found.origin.endswith(".py"):
        return [Path(found.origin)]
    return sorted(file for root in roots for file in root.rglob("*.py"))


def imported(module: str) -> set[str]:
    """The modules of mcit_core that a module (a third party's whole package) names in an import, and the packages that
    they stand in."""
    names: set[str] = set()
    for file in _files(module):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    ours = {name for name in names if name.split(".")[0] == "mcit_core"}
    ours |= {name.rsplit(".", up)[0] for name in ours for up in range(1, name.count(".") + 1)}
    return {name for name in ours if _files(name)}


@cache
def code_fingerprint(*modules: str, leaving_out: tuple[str, ...] = ()) -> str:
    """Digest of the syntax trees of `modules` and of all that they import of mcit_core, by module name, but for those
    in `leaving_out` and what only they import. Comments, layout, docstrings and descriptions do not matter."""
    found, new = set[str](), set(modules)
    while new:
        found |= new
        new = {name for module in new for name in imported(module)} - found - set(leaving_out)
    return digest([[name, *map(_tree, _files(name))] for name in sorted(found)])


def installed(package: str) -> str:
    """The version of an installed package."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


@cache
def module_fingerprint(module: str) -> str:
    """Digest of the syntax trees of a third party's module, and of all else in its package where it is in one."""
    files = _files(module)
    return digest([[file.name, _tree(file)] for file in files]) if files else "unknown"
