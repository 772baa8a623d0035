"""What `--dry-run` prints: settings, seconds, hours, money, workers for a deadline; and what it refuses."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from mcit_core.config import Experiment
from orchestration import sweep
from orchestration.arguments import find_sweep, read_deadline, read_rate
from orchestration.dry_run import clock, hours, settings_table, size
from orchestration.plan.bill import Amount, Bill, bill
from orchestration.plan.memory import Memory
from orchestration.plan.spec import SweepSpec
from orchestration.plan.stage_tree import costs, stage_tree
from orchestration.plan.stored import Stored
from orchestration.plan.sweep_file import load_spec
from orchestration.plan.trials import make_trials
from tests.support.places import ROOT
from tests.support.timed import keep

FILE = """\
name: two
benchmark: mini
tasks: [attribute, ground]
model: mini
method: sequential
base: {train.steps: 10, evaluation.rows: 100}
axes: {method: [sequential, sequential_lora]}
seeds: [0, 1]
"""


def spec_of(folder: Path, *assignments: str) -> SweepSpec:
    (folder / "two.yaml").write_text(FILE)
    return load_spec(folder / "two.yaml", list(assignments))


def plan(folder: Path, capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> str:
    spec_of(folder)
    assert sweep.main([str(folder / "two.yaml"), "--dry-run", "--storage", str(folder / "runs"), *words]) == code
    return capsys.readouterr().out


def stored(folder: Path, *seeds: int) -> None:
    """1 s a step of the pool and 0.5 s of LoRA, 10 ms a row."""
    spec = spec_of(folder, f"seeds={list(seeds)}")
    experiments = [trial.experiment for trial in make_trials(spec)]

    def step(one: Experiment) -> float:
        return 1.0 if one.tuner == "prompt_pool" else 0.5

    keep(folder / "runs" / "stages", experiments, step)


def test_by_hand_from_stages_of_other_seeds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stored(tmp_path, 5, 6)
    said = plan(tmp_path, capsys, "--rate", "40/h", "--workers", "2")
    # of each seed 2 stages of 10 steps; 400 and 700 rows after them; of each trial a quarter of the untouched one's 500
    assert re.search(r"^sequential +2 +4 +40 s +24 s +0\.018 .* 0\.72 +like$", said, re.M), said
    assert re.search(r"^sequential_lora +2 +4 +20 s +24 s +0\.012 .* 0\.49 +like$", said, re.M), said
    assert re.search(r"^in all +4 +8 +60 s +49 s +0\.030 .* 1\.21 +like$", said, re.M), said
    assert "like: 0.5 to 1 s a step, medians of 2 stored stages of 10 steps on " in said
    assert "with the same settings, half of them within 0 %; sequential; sequential_lora" in said
    # 5 s of the untouched model by two workers; 2 * 31 s of the pool and 2 * 21 s of LoRA
    assert "estimated time 54 s on 2 workers" in said
    assert "reserved for the whole time, idle too: 1.21" in said


def test_what_is_stored_is_told_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stored(tmp_path, 0)
    said = plan(tmp_path, capsys)
    assert "4 of the stages are stored already and are not trained again" in said
    assert re.search(r"^sequential +2 +2 +2 +20 s ", said, re.M), said


def test_a_deadline_by_hand(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stored(tmp_path, 5)
    # 109 s of work; two workers take 54 s, four 1.25 s and the longer chain of 31 s
    assert "--deadline 2 min: 1 worker at least" in plan(tmp_path, capsys, "--deadline", "120s")
    said = plan(tmp_path, capsys, "--deadline", "60s", "--rate", "36")
    assert "--deadline 60 s: 2 workers at least, done in 54 s; reserved, idle too, 0.030 worker-h" in said
    assert said.rstrip().endswith("money 1.09")
    said = plan(tmp_path, capsys, "--deadline", "20s")
    assert "no number of workers is enough; 4, one for each trial, take 32 s, and 2 stages that wait" in said
    assert "for one another 31 s" in said


def test_a_search_is_priced_as_at_least(capsys: pytest.CaptureFixture[str]) -> None:
    assert sweep.main(["search", "--dry-run", "--deadline", "60s", "--workers", "2"]) == 0
    said = capsys.readouterr().out
    assert "settings at random stand in" in said
    assert "estimated time at least" in said
    assert "more than 12 workers have no use" in said


def test_several_processes_are_not_probed(capsys: pytest.CaptureFixture[str]) -> None:
    assert sweep.main(["smoke", "--dry-run", "--probe", "--set", "resources={processes: 2, cpus: 0.5}"]) == 2
    assert "--probe times one process" in capsys.readouterr().err


def test_a_gpu_costs_by_its_hours(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, "resources.gpus=0.5")
    trials = make_trials(spec)
    tree = stage_tree(trials)
    found = bill(trials, tree, costs(trials, tree), Stored(), "cuda")
    hour = Amount(train=3600.0, stages=1.0)
    for line in found.lines:
        line.amount = hour
    said = printed(Bill(**{**vars(found), "total": hour * len(found.lines)}), spec, 2.5, 120)
    assert re.search(r"worker-h +GPU-h +disk +money", said)
    assert re.search(r"^sequential +2 +1 +60 min +0 s +1\.00 +0\.50 +.*1\.25", said, re.M), said


def printed(found: Bill, spec: SweepSpec, rate: float | None, width: int) -> str:
    console = Console(width=width)
    with console.capture() as captured:
        table, left_out = settings_table(found, Memory(), spec, rate, width)
        console.print(table)
    return captured.get() + f"left out: {left_out}\n"


@pytest.mark.parametrize("width", [80, 100, 140])
@pytest.mark.parametrize("name", ["threshold", "compare", "conflict"])
def test_no_number_is_cut_from_80_columns_on(name: str, width: int) -> None:
    spec = load_spec(find_sweep(Path(name)))
    trials = make_trials(spec)
    tree = stage_tree(trials)
    found = bill(trials, tree, costs(trials, tree), Stored(), "cpu")
    said = printed(found, spec, 2.5, width)
    assert "…" not in said
    assert all(len(line) <= width for line in said.splitlines())
    total = next(line for line in said.splitlines() if line.startswith("in all"))
    for number in (clock(found.total.train), clock(found.total.evaluate), hours(found.total.seconds)):
        assert number in total


def test_a_narrow_terminal_has_fewer_columns_and_no_cut_number(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, "resources.gpus=8")
    trials = make_trials(spec)
    tree = stage_tree(trials)
    found = bill(trials, tree, costs(trials, tree), Stored(), "cuda")
    hour = 3600.0
    for line in found.lines:
        line.amount = Amount(12_345.6 * hour, 2345.6 * hour, 123.4e9, 1234.5, 4321.5)
        line.peak = 78.9e9
    found = Bill(**{**vars(found), "total": sum((line.amount for line in found.lines), Amount())})
    for width in range(60, 150, 5):
        said = printed(found, spec, 12.5, width)
        assert "…" not in said
        total = next(line for line in said.splitlines() if line.startswith("in all"))
        assert "29,382" in total  # worker-hours
        assert "235,059" in total  # of eight GPUs each
        assert "2,938,240.00" in total
        assert all(len(line) <= width for line in said.splitlines() if not line.startswith("left out"))
    assert said.endswith("left out: []\n")
    assert "'timed'" in printed(found, spec, 12.5, 80)


def test_hundreds_of_settings_are_a_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    energies = [round(0.001 * number, 3) for number in range(1, 301)]
    file = tmp_path / "many.yaml"
    file.write_text(FILE.replace("sequential\n", "fwd_prompt\n", 1).split("axes:")[0])
    words = ["--set", f"axes={{projection.task_energy: {energies}}}", "--storage", str(tmp_path / "runs")]
    assert sweep.main([str(file), "--dry-run", *words]) == 0
    said = capsys.readouterr().out
    assert len(said.splitlines()) < 60
    assert re.search(r"^and 280 more settings +280 ", said, re.M)
    assert re.search(r"^in all +300 ", said, re.M)


def test_no_time_is_known_and_how_to_get_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--set", "model=tiny", "--set", "benchmark=tiny", "--deadline", "8h"]
    said = plan(tmp_path, capsys, *words)
    assert "no time is known beforehand" in said
    assert "--probe" in said
    assert "no number of workers can be told" in said
    assert re.search(r"^in all +4 +8 +– +– +–$", said, re.M), said
    assert "estimated time" not in said
    said = plan(tmp_path, capsys, *words, "--probe", "--set", "train.batch_size=8")
    assert "nothing of it is in the stage store" in said
    assert not (tmp_path / "runs" / "stages").exists()
    assert "estimated time" in said
    assert "–" not in re.search(r"^in all.*$", said, re.M)[0]  # type: ignore[index]


def test_nothing_is_probed_that_is_stored(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stored(tmp_path, 5)
    said = plan(tmp_path, capsys, "--probe")
    assert "--probe: nothing to try" in said


def test_a_probe_that_fails_says_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec_of(tmp_path)
    words = ["--dry-run", "--probe", "--storage", str(tmp_path / "runs"), "--set", "model={kind: hf, path: /nowhere}"]
    assert sweep.main([str(tmp_path / "two.yaml"), *words]) == 2
    said = capsys.readouterr().err
    assert said.startswith("--probe: ")
    assert "/nowhere" in said


def test_a_store_that_does_not_answer_is_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in (("ACCESS_KEY_ID", "a"), ("SECRET_ACCESS_KEY", "b"), ("ENDPOINT", "http://127.0.0.1:9")):
        monkeypatch.setenv(f"AWS_{name}", value)
    said = plan(tmp_path, capsys, "--stages", "s3://bucket/stages")
    assert "no timings are read from the stage store: s3://bucket/stages: the store does not answer" in said
    assert re.search(r"^in all +4 +8 .* usual$", said, re.M), said


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *(("--rate", value) for value in ("abc", "-1", "2.5/d", "", "nan", "2,5")),
        *(("--deadline", value) for value in ("0", "0h", "8", "8 weeks", "h", "-3h", "")),
    ],
)
def test_a_wrong_option_is_refused_with_what_is_expected(
    option: str, value: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec_of(tmp_path)
    assert sweep.main([str(tmp_path / "two.yaml"), "--dry-run", f"{option}={value}"]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"{option} {value}".rstrip())
    assert "expected" in said
    assert "for example" in said


@pytest.mark.parametrize("words", [["--rate", "2"], ["--deadline", "8h"], ["--probe"]])
def test_options_of_a_plan_are_refused_without_it(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec_of(tmp_path)
    assert sweep.main([str(tmp_path / "two.yaml"), "--storage", str(tmp_path / "runs"), *words]) == 2
    said = capsys.readouterr().err
    assert said.startswith(words[0])
    assert "--dry-run" in said
    assert not (tmp_path / "runs").exists()


def test_rates_and_deadlines() -> None:
    assert [read_rate(text) for text in ("2.5/h", "2.5", "3 / h", ".5", None)] == [2.5, 2.5, 3.0, 0.5, None]
    assert [read_deadline(text) for text in ("8h", "90m", "90 min", "1.5d", "30s")] == [28800, 5400, 5400, 129_600, 30]


def test_numbers_have_units() -> None:
    assert [clock(n) for n in (0, 3.21, 45, 720, 9000, 300_000)] == ["0 s", "3.2 s", "45 s", "12 min", "2.5 h", "3.5 d"]
    assert [hours(n) for n in (36, 3600, 72_000, 720_000)] == ["0.010", "1.00", "20.0", "200"]
    assert [size(n) for n in (2500, 3e6, 4.2e9, 5e12)] == ["2 kB", "3.0 MB", "4.2 GB", "5.0 TB"]


def test_a_plan_of_what_was_never_stored_loads_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom orchestration.sweep import main\n"
        f"assert main(['threshold', '--dry-run', '--deadline', '8h', '--storage', {str(tmp_path / 'runs')!r}]) == 0\n"
        "assert not {'torch', 'ray', 'mlflow', 'optuna', 'transformers'} & sys.modules.keys()\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
