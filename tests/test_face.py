"""What a person meets first: the console command, `import mcit_core`, the shipped sweeps, the wheel, the examples."""

from __future__ import annotations

import doctest
import json
import os
import pkgutil
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
import yaml

import mcit_core
from mcit_core import run as one_sequence
from mcit_core.yaml_document import SpecError
from orchestration import mcit, sweep
from orchestration.arguments import NO_SWEEP, SHIPPED, find_sweep, fitting, machine, read_command, shipped_names
from orchestration.plan.sweep_file import load_spec
from tests.support.examples import example

ROOT = Path(mcit_core.__file__).parent.parent
HEAVY = {"torch", "ray", "mlflow", "transformers"}


def python(code: str, folder: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def call(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["mcit", *words])
    return mcit.main()


# the console command


def test_help_lists_the_commands_and_loads_nothing_heavy() -> None:
    done = python(
        "import sys\nfrom orchestration.mcit import main\nsys.argv = ['mcit', '--help']\ncode = main()\n"
        f"assert not {HEAVY!r} & sys.modules.keys()\nsys.exit(code)\n"
    )
    assert done.returncode == 0, done.stderr
    for name in ("sweep", "run", "methods", "store", "track"):
        assert f"\n  {name} " in done.stdout


@pytest.mark.parametrize(("word", "nearest"), [("swep", "sweep"), ("method", "methods"), ("stroe", "store")])
def test_a_misspelt_command_is_refused_with_the_nearest(
    word: str, nearest: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, word) == 2
    said = capsys.readouterr().err
    assert f"did you mean {nearest!r}?" in said
    assert len(said.splitlines()) == 1


def test_every_command_is_there(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(monkeypatch, "methods") == 0
    assert "fwd_prompt" in capsys.readouterr().out
    for name in ("sweep", "run", "store", "track"):
        with pytest.raises(SystemExit) as left:
            call(monkeypatch, name, "--help")
        assert left.value.code == 0
        assert mcit.COMMANDS[name][0] in capsys.readouterr().out


def test_an_exit_code_is_passed_on(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(monkeypatch, "sweep", "treshold", "--dry-run") == 2
    assert "did you mean 'threshold'?" in capsys.readouterr().err


# the shipped sweeps


@pytest.mark.parametrize("name", shipped_names())
def test_a_shipped_sweep_names_no_workers(name: str) -> None:
    content = yaml.safe_load((SHIPPED / f"{name}.yaml").read_text())
    assert "workers" not in content.get("resources", {})
    assert load_spec(SHIPPED / f"{name}.yaml").workers is None


def test_a_bare_name_is_a_shipped_sweep_unless_it_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_sweep(Path("threshold")) == SHIPPED / "threshold.yaml"
    assert find_sweep(Path("threshold.yaml")) == Path("threshold.yaml")
    assert find_sweep(Path("paper/coin")) == SHIPPED / "paper" / "coin.yaml"
    with pytest.raises(SpecError, match="did you mean 'paper/coin'"):
        find_sweep(Path("paper/coinn"))
    assert find_sweep(Path("sweeps/threshold")) == Path("sweeps/threshold")
    (tmp_path / "threshold").mkdir()  # a RUN's folder, say
    assert find_sweep(Path("threshold")) == SHIPPED / "threshold.yaml"
    (tmp_path / "mine").touch()
    assert find_sweep(Path("mine")) == Path("mine")
    (tmp_path / "threshold").rmdir()
    (tmp_path / "threshold").touch()
    assert find_sweep(Path("threshold")) == Path("threshold")
    assert NO_SWEEP not in shipped_names()


def test_an_unknown_bare_name_is_refused_with_the_list(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert sweep.main(["zzz", "--dry-run"]) == 2
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1
    for name in shipped_names():
        assert name in said


# the command's arguments


def asked(*words: str) -> tuple[object, list[str]]:
    return sweep.parser("").parse_args(list(words)), list(words)


def test_workers_are_those_named_or_as_many_as_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = load_spec(SHIPPED / "threshold.yaml")
    named = load_spec(SHIPPED / "threshold.yaml", ["resources.workers=3"])
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    assert read_command(*asked("threshold"), spec, 14).workers == 14  # no more than there are trials
    assert read_command(*asked("threshold"), spec, 100).workers == 64
    assert read_command(*asked("threshold"), named, 14).workers == 3
    assert read_command(*asked("threshold", "--workers", "5"), named, 14).workers == 5
    assert read_command(*asked("threshold", "--workers", "65"), named, 100).workers == 64  # Ray counts what there is
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    assert read_command(*asked("threshold"), spec, 14).workers is None  # the cluster's nodes decide


def test_what_fits_on_a_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    def fit(cpus: float, gpus: float) -> int:
        spec = load_spec(SHIPPED / "threshold.yaml", [f"resources.cpus={cpus}", f"resources.gpus={gpus}"])
        return fitting(spec, [machine()], "this machine")

    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert fit(1, 0) == 8
    assert fit(3, 0) == 2
    assert fit(1, 1) == 2
    assert fit(1, 0.5) == 4
    assert fit(1, 0.6) == 2  # a share of a GPU is of one
    with pytest.raises(SpecError, match=r"resources.cpus 16, and this machine has 8 CPUs"):
        fit(16, 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(SpecError, match=r"resources.gpus 1, and this machine has 8 CPUs and 0 GPUs: it would wait"):
        fit(1, 1)


def test_what_fits_on_a_cluster_is_counted_node_by_node() -> None:
    spec = load_spec(SHIPPED / "threshold.yaml", ["resources.cpus=4", "resources.gpus=1"])
    nodes = [{"cpus": 3, "gpus": 8}, {"cpus": 64, "gpus": 2}, {"cpus": 4, "gpus": 1}]
    assert fitting(spec, nodes, "the largest node") == 3
    with pytest.raises(SpecError, match="the largest node has 3 CPUs and 8 GPUs"):
        fitting(spec, nodes[:1], "the largest node")


def test_a_trial_of_several_processes_takes_room_for_each_on_one_node_or_several() -> None:
    def fit(processes: int) -> int:
        spec = load_spec(
            SHIPPED / "threshold.yaml", [f"resources.processes={processes}", "resources.cpus=2", "resources.gpus=1"]
        )
        return fitting(spec, [{"cpus": 5, "gpus": 8}, {"cpus": 64, "gpus": 3}], "the largest node")

    assert [fit(processes) for processes in (1, 2, 3, 5)] == [5, 2, 1, 1]
    asked = "resources.processes 6, each with resources.cpus 2 and resources.gpus 1, and the largest node has 5 CPUs"
    with pytest.raises(SpecError, match=asked):
        fit(6)


@pytest.mark.parametrize("dry", [True, False])
@pytest.mark.parametrize("assignment", ["resources.gpus=1", "base.train.device=cuda"])
def test_a_gpu_that_is_not_there_is_refused(
    assignment: str, dry: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    words = ["smoke", "--set", assignment, "--storage", str(tmp_path / "runs"), *(["--dry-run"] if dry else [])]
    assert sweep.main(words) == 2
    said = capsys.readouterr().err
    assert "resources.gpus" in said
    assert len(said.splitlines()) == 1
    assert not (tmp_path / "runs").exists()


def test_the_hint_reproduces_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    words = ("threshold", "--set", "seeds=[0, 1]", "--fresh", "--workers", "2")
    command = read_command(*asked(*words), load_spec(SHIPPED / "threshold.yaml"), 14)
    assert command.again == "python -m orchestration.sweep threshold --set 'seeds=[0, 1]' --workers 2"


# import mcit_core


def test_importing_mcit_core_loads_no_torch() -> None:
    done = python(
        f"import sys, mcit_core\nheavy = {HEAVY!r}\nassert not heavy & sys.modules.keys()\n"
        "mcit_core.build_experiment, mcit_core.summarise, mcit_core.Experiment, mcit_core.__version__\n"
        "assert not heavy & sys.modules.keys()\n"
        "assert {'Experiment', 'build_experiment', 'Sequence', 'summarise', '__version__'} <= set(dir(mcit_core))\n"
    )
    assert done.returncode == 0, done.stderr


def test_what_mcit_core_gives_is_the_modules_own() -> None:
    from mcit_core.training.sequence import Sequence

    assert mcit_core.Sequence is Sequence
    assert mcit_core.__version__
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = mcit_core.nothing  # type: ignore[attr-defined]


def test_the_example_in_its_docstring() -> None:
    tried = doctest.testmod(mcit_core)
    assert tried.attempted >= 4
    assert tried.failed == 0


# python -m mcit_core.run --out


def experiment_file(folder: Path, method: str = "sequential_lora") -> str:
    path = folder / "experiment.yaml"
    path.write_text(
        f"benchmark: tiny\nmodel: mini\nmethod: {method}\norder: [attribute, ground]\n"
        "train: {steps: 1, batch_size: 8}\n"
    )
    return str(path)


def test_a_run_writes_its_result(tmp_path: Path, features: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "some" / "out"
    words = [experiment_file(tmp_path), "--features", str(features), "--out", str(out)]
    assert one_sequence.main(words) == 0
    said = capsys.readouterr().out
    assert sorted(path.name for path in out.iterdir()) == ["accuracy_matrix.csv", "experiment.yaml", "metrics.json"]
    lines = [line.split(",") for line in (out / "accuracy_matrix.csv").read_text().splitlines()]
    assert lines[0] == ["stage", "attribute", "ground"]
    assert [line[0] for line in lines[1:]] == ["untouched", "attribute", "ground"]
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["average_accuracy"] == pytest.approx(sum(map(float, lines[-1][1:])) / 2, abs=1e-6)
    assert metrics["transfer_to_direct"] is None
    assert f"{100 * metrics['average_accuracy']:.1f} %" in said
    assert one_sequence.load_experiment(out / "experiment.yaml").train.steps == 1


@pytest.mark.parametrize("method", ["multitask", "zero_shot"])
def test_what_trains_no_sequence_has_its_result_too(method: str, tmp_path: Path, features: Path) -> None:
    out = tmp_path / "out"
    assert one_sequence.main([experiment_file(tmp_path, method), "--features", str(features), "--out", str(out)]) == 0
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["average_accuracy"] is not None
    assert metrics["forgetting"] is None
    stages = [line.split(",")[0] for line in (out / "accuracy_matrix.csv").read_text().splitlines()[1:]]
    assert stages == ["untouched", *(["multitask"] if method == "multitask" else [])]


def test_a_file_in_the_place_of_out_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = experiment_file(tmp_path)
    for place in (path, f"{path}/out"):
        assert one_sequence.main([path, "--out", place]) == 2
        said = capsys.readouterr().err
        assert said.startswith(f"--out {place}: ")
        assert "is a file; expected a folder" in said
        assert len(said.splitlines()) == 1


# the wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project's wheel, built from a copy of its tree, so that nothing is left in the tree itself."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in ("mcit_core", "orchestration", "sweeps"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    words = ("wheel", "-q", "--no-deps", "--no-index", "--no-build-isolation", "-w", str(folder), str(source))
    subprocess.run([sys.executable, "-m", "pip", *words], check=True, cwd=folder)
    return next(folder.glob("mcit-*.whl"))


def test_the_wheel_carries_what_an_installation_needs(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        command = next(name for name in names if name.endswith("entry_points.txt"))
        assert "mcit = orchestration.mcit:main" in archive.read(command).decode()
    assert {f"sweeps/{path.relative_to(SHIPPED)}" for path in SHIPPED.rglob("*.yaml")} <= names
    assert {"mcit_core/py.typed", "orchestration/py.typed", "orchestration/published.yaml"} <= names
    assert {f"mcit_core/models/mini_checkpoint/{name}" for name in ("config.json", "model.safetensors")} <= names
    assert not any(name.startswith(("tests/", "examples/", "docs/", "benchmarks/")) for name in names)


def test_an_installed_wheel_finds_the_shipped_sweeps(wheel: Path, tmp_path: Path) -> None:
    installed, elsewhere = tmp_path / "installed", tmp_path / "elsewhere"
    elsewhere.mkdir()
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(installed)
    done = python(
        f"import sys, orchestration.mcit as mcit\nassert mcit.__file__.startswith({str(installed)!r})\n"
        "sys.argv = ['mcit', 'sweep', 'threshold', '--dry-run']\nsys.exit(mcit.main())\n",
        elsewhere,
        PYTHONPATH=str(installed),
    )
    assert done.returncode == 0, done.stderr
    assert "23 trials" in done.stdout


# the examples


def test_the_example_of_one_sequence(features: Path, capsys: pytest.CaptureFixture[str]) -> None:
    example("one_sequence").main(["--benchmark", "tiny", "--steps", "1", "--features", str(features)])
    said = capsys.readouterr().out
    assert [line.split(":")[0] for line in said.splitlines()[:3]] == [
        "after nothing",
        "after attribute",
        "after ground",
    ]
    assert "average_accuracy" in said


def test_the_example_of_floors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    def cell(
        method: str, seed: int, stage_task: str | None, task: str, split: str, accuracy: float
    ) -> dict[str, object]:
        about = {"method": method, "seed": seed, "stage_task": stage_task, "task": task, "split": split}
        return {**about, "accuracy": accuracy, "content_accuracy": accuracy + 0.1}

    cells = [cell("direct", seed, "bars", "bars", "test", value) for seed, value in enumerate((0.5, 0.6, 0.7))]
    cells += [cell("direct", 0, "ocr", "bars", "test", 0.1), cell("direct", 0, None, "bars", "test", 0.2)]
    cells += [cell("direct", 0, "bars", "bars", "validation", 0.3)]
    cells += [cell(name, 0, None, "bars", "test", value) for name, value in (("zero_shot", 0.0), ("majority", 0.2))]
    cells += [cell("blind", 0, "bars", "bars", "test", 0.25)]
    pq.write_table(pa.Table.from_pylist(cells), tmp_path / "accuracy.parquet")
    example("floors").main(tmp_path)
    (row,) = capsys.readouterr().out.splitlines()[2:]
    assert row == "| bars | 0.0 | 20.0 | 25.0 | 60.0 ± 24.8 | +35.0 | 70.0 ± 24.8 |"


PAIR = ["--benchmark", "tiny", "--first", "attribute", "--second", "ground"]


def test_the_example_of_what_protects(features: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [*PAIR, "--steps", "2", "--rows", "6", "--seeds", "0", "--features"]
    ways = ["share", "attention 0.8", "freeze"]
    example("what_protects").main([*words, str(features), "--ways", *ways])
    heading, *lines = capsys.readouterr().out.splitlines()
    assert " ".join(heading.split()) == "kept scores attended layer 1 layer 2 layer 3 KL KL* accuracy*"
    found = {line[:22].strip(): [float(word) for word in line[22:].split()] for line in lines}
    assert list(found) == ["as it was", *ways]
    assert found["as it was"][:-1] == [1.0] + [0.0] * 7
    assert found["share"][1] > found["freeze"][1]


def test_the_example_of_what_pegp_keeps(features: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """At an energy of 1.0 the answers to the rows whose inputs were collected stay; unprotected they do not."""
    words = [*PAIR, "--steps", "2", "--rows", "6", "--seeds", "0", "--tuners", "lora", "--features"]
    with pytest.warns(UserWarning, match="the space asked for is used up"):
        example("what_pegp_keeps").main([*words, str(features)])
    lines = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines()[2:]]
    assert [line[0] for line in lines] == ["lora, unprotected", "lora, 0.99", "lora, 1"]
    unprotected, _, whole = (float(line[1].split()[0]) for line in lines)
    assert whole < 0.001 < unprotected


def test_the_example_of_reading_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    def row(method: str, seed: int, accuracy: float, energy: float | None) -> dict[str, object]:
        return {
            "trial": f"{method}-{seed}",
            "method": method,
            "seed": seed,
            "order": "attribute>ground",
            "status": "FINISHED",
            "average_accuracy": accuracy,
            "forgetting": 0.1,
            "projection.task_energy": energy,
        }

    rows = [row("sequential", seed, 0.25, None) for seed in (0, 1)]
    rows += [row("fwd_prompt", seed, 0.5 + 0.25 * seed, 0.9) for seed in (0, 1)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "trials.parquet")
    (tmp_path / "sweep.yaml").write_text("axes: {projection.task_energy: [0.9]}\n")
    example("read_a_run").main(tmp_path)
    said = capsys.readouterr().out
    assert "fwd_prompt (projection.task_energy=0.9) minus sequential, average_accuracy: +0.375" in said
    assert "over 2 seeds" in said


# the texts


def test_readme_has_its_two_commands_and_names_real_folders() -> None:
    text = (ROOT / "README.md").read_text()
    venv = "python3 -m venv .venv && . .venv/bin/activate && pip install -c requirements.lock -e"
    tests = (ROOT / ".ci" / "run").read_text().splitlines()[-1]
    assert tests.startswith("python -m pytest")
    for rest in (". && python -m orchestration.sweep sweeps/threshold.yaml", f"'.[dev]' && {tests}"):
        assert f"```bash\n{venv} {rest}\n```\n" in text
    tree = text.split("```text\n")[1].split("```")[0]
    folders = re.findall(r"^(\S+)/", tree, re.MULTILINE)
    assert {"mcit_core", "orchestration", "sweeps", "examples", "deploy", "docs", "tests"} == set(folders)
    assert all((ROOT / folder).is_dir() for folder in folders)


def test_one_numbers_way_names_what_is_there() -> None:
    names = re.findall(r"`((?:mcit_core|orchestration)(?:\.\w+)+)", (ROOT / "docs" / "number.md").read_text())
    assert len(names) > 15
    for name in names:
        assert pkgutil.resolve_name(name)


def test_a_plan_of_many_trials_is_a_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "big.yaml"
    file.write_text(
        "{name: big, benchmark: mini, tasks: [attribute, ground], model: mini, method: fwd_prompt,"
        f" seeds: {list(range(75))}, axes: {{projection.task_energy: [0.5, 0.6, 0.7, 0.8]}}}}"
    )
    assert sweep.main([str(file), "--dry-run", "--storage", str(tmp_path / "runs")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) < 40
    assert lines[20] == "  and 280 more, in the same way"
    assert lines[21].startswith("300 trials, 600 stages, ")
