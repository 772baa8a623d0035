"""Imports point one way and in no circle, mcit_core needs no orchestration library, and files stay readable."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from tests.support.places import ROOT

PACKAGES = ("mcit_core", "orchestration")
#: what each may not import: imports point from sweeps over orchestration to mcit_core
ABOVE = {
    "mcit_core": {"orchestration", "sweeps", "tests", "ray", "mlflow", "optuna"},
    "orchestration": {"sweeps", "tests"},
}
#: library -> the files of orchestration that may import it
ALLOWED = {"ray": "run/*.py", "mlflow": "tracking/mirror.py", "optuna": "search/optuna_search.py"}
LINES = 400
ANY_PER_1000_LINES = 7


def files(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def module(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module(path): path for package in PACKAGES for path in files(package)}


def imports(path: Path) -> set[str]:
    """Every name that a file imports, also inside functions and for type checkers; `from a import b` gives a.b."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}:{node.lineno}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def libraries(path: Path) -> set[str]:
    return {name.split(".")[0] for name in imports(path)}


def imported_modules(path: Path) -> set[str]:
    """The modules of both packages that a file imports."""
    return {found for name in imports(path) for found in (name, name.rpartition(".")[0]) if found in MODULES} - {
        module(path)
    }


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_point_one_way(package: str) -> None:
    for path in files(package):
        assert not libraries(path) & ABOVE[package], path


@pytest.mark.parametrize("library", ALLOWED)
def test_only_their_own_files_import_the_orchestration_libraries(library: str) -> None:
    pattern = ALLOWED[library]
    allowed = set((ROOT / "orchestration").glob(pattern)) if pattern else set()
    for path in files("orchestration"):
        assert library not in libraries(path) or path in allowed, path


def test_tuners_models_and_benchmarks_do_not_import_one_another() -> None:
    rooms = ("tuners", "models", "benchmarks")
    for room in rooms:
        others = {f"mcit_core.{other}." for other in rooms if other != room}
        for path in files(f"mcit_core/{room}"):
            for name in imported_modules(path):
                # a contract (the package itself) may be named; an implementation of another room may not
                assert not name.startswith(tuple(others)), path


def test_no_circle_of_imports() -> None:
    graph = {name: imported_modules(path) for name, path in MODULES.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" is imported by ".join(error.args[1]))


def test_no_module_is_longer_than_400_lines() -> None:
    lengths = {name: len(path.read_text().splitlines()) for name, path in MODULES.items()}
    assert {name: length for name, length in lengths.items() if length > LINES} == {}


def test_any_is_rare() -> None:
    texts = {name: path.read_text() for name, path in MODULES.items()}
    counts = {name: len(re.findall(r"\bAny\b", text)) for name, text in texts.items()}
    lines = sum(len(text.splitlines()) for text in texts.values())
    worst = sorted(counts.items(), key=lambda item: -item[1])[:10]
    rate = 1000 * sum(counts.values()) / lines
    assert rate <= ANY_PER_1000_LINES, f"{rate:.1f} in 1,000 lines; most in {worst}"


def test_mcit_core_runs_where_ray_mlflow_and_optuna_are_missing() -> None:
    code = (
        "import sys\n"
        "for name in ('ray', 'mlflow', 'optuna'): sys.modules[name] = None\n"
        "import mcit_core.training.sequence, mcit_core.run, mcit_core.models.mini, mcit_core.benchmarks.mini\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_reading_a_sweep_loads_no_heavy_library() -> None:
    code = (
        "import sys\nfrom pathlib import Path\nfrom orchestration.sweep import known_trials, load_spec\n"
        "known_trials(load_spec(Path('sweeps/threshold.yaml')))\n"
        "assert not {'torch', 'ray', 'mlflow', 'optuna', 'transformers'} & sys.modules.keys()\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
