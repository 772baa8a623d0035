"""Imports point one way, and mcit_core needs no orchestration library."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

from tests.support.places import ROOT


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module)
    return found


def test_mcit_core_imports_no_orchestration() -> None:
    for path in (ROOT / "mcit_core").rglob("*.py"):
        tops = {name.split(".")[0] for name in imports(path)}
        assert not tops & {"ray", "mlflow", "optuna", "orchestration", "tests"}, path


def test_only_their_own_file_imports_ray_and_mlflow() -> None:
    allowed = {"ray": {"ray_tune.py", "trainable.py"}, "mlflow": {"tracker.py"}}
    for path in (ROOT / "orchestration").rglob("*.py"):
        tops = {name.split(".")[0] for name in imports(path)}
        for library, files in allowed.items():
            assert library not in tops or path.name in files, path


def test_tuners_models_and_benchmarks_do_not_import_one_another() -> None:
    rooms = ("tuners", "models", "benchmarks")
    for room in rooms:
        for path in (ROOT / "mcit_core" / room).glob("*.py"):
            others = {f"mcit_core.{other}" for other in rooms if other != room}
            for name in imports(path):
                parts = name.split(".")
                # a contract (the package itself) may be named; an implementation of another room may not
                assert not (".".join(parts[:2]) in others and len(parts) > 2), (path, name)


def test_mcit_core_runs_where_ray_mlflow_and_optuna_are_missing() -> None:
    code = (
        "import sys\n"
        "for name in ('ray', 'mlflow', 'optuna'): sys.modules[name] = None\n"
        "import mcit_core.training.sequence, mcit_core.run, mcit_core.models.mini, mcit_core.benchmarks.mini\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_reading_a_sweep_loads_no_heavy_library() -> None:
    code = (
        "import sys\nfrom pathlib import Path\nfrom orchestration.sweep import load_spec, make_trials\n"
        "make_trials(load_spec(Path('sweeps/threshold.yaml')))\n"
        "assert not {'torch', 'ray', 'mlflow', 'transformers'} & sys.modules.keys()\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
