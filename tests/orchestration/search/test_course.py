"""What a search proposes depends on results alone: not on workers, on which trial ends first, or on interruptions."""

from __future__ import annotations

import random
from pathlib import Path
from statistics import fmean

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from orchestration.keep.records import Records
from orchestration.keep.trial_record import setting_state
from orchestration.plan.sweep_file import load_spec
from orchestration.plan.trials import Trial
from orchestration.search.course import Course
from orchestration.search.proposals import Proposals, rule_of, run_trials_of
from tests.support.searching import SWEEP, run_search, smooth, write_sweep_file

TWO = {"average_accuracy": "maximize", "forgetting": "minimize"}
SEARCHES: dict[str, dict[str, object]] = {
    "random": {"kind": "random"},
    "sobol": {"kind": "sobol"},
    **{name: {"kind": "optuna", "sampler": name} for name in ("tpe", "nsga2", "nsga3", "gp", "qmc")},
}


def search(name: str, **more: object) -> dict[str, object]:
    limits = {"forgetting": 0.2, "trained_parameters": 1e6}
    return {"trials": 24, "batch": 3, "seed": 1, "objectives": TWO, "constraints": limits, **SEARCHES[name], **more}


def tables(run: Path) -> dict[str, pa.Table]:
    """What a RUN shows, without what a command counts of its own."""
    found = {name: pq.read_table(run / f"{name}.parquet").replace_schema_metadata() for name in ("accuracy", "trials")}
    found["trials"] = found["trials"].drop_columns(["stages_trained", "stages_reused"])
    return found


def of_rate_alone(trial: Trial) -> list[list[float]]:
    """`smooth` where nothing but the rate varies."""
    settings = {"projection.task_energy": 0.8, "pool.size": 40, **trial.settings}
    return smooth(Trial(trial.id, trial.experiment, settings))


@pytest.mark.parametrize("name", SEARCHES)
def test_workers_ends_and_kills_change_no_suggestion_and_no_bit(name: str, tmp_path: Path) -> None:
    spec = write_sweep_file(tmp_path, search=search(name, trials=14 if name == "gp" else 24), seeds=[0])
    run_search(spec, tmp_path / "plain", 1, random.Random(0))
    plain = tables(tmp_path / "plain")
    cases = [(2, 0), (4, 3), (8, 3)] if name != "gp" else [(4, 2)]
    for workers, deaths in cases:
        run = tmp_path / f"{workers} {deaths}"
        run_search(spec, run, workers, random.Random(workers), deaths=deaths)
        assert Proposals(run, spec).read() == Proposals(tmp_path / "plain", spec).read()
        assert tables(run) == plain
    settings = plain["trials"]["setting"].to_pylist()
    assert settings == list(range(plain["trials"].num_rows))  # each once, and all of them


def test_a_longer_search_begins_as_the_shorter_one(tmp_path: Path) -> None:
    """Extended, it is what it would have been from the start; its last batch had been cut short."""
    long = write_sweep_file(tmp_path, search=search("tpe", trials=20))
    run_search(long, tmp_path / "long", 4, random.Random(3))
    short = write_sweep_file(tmp_path, search=search("tpe", trials=13))
    run_search(short, tmp_path / "short", 2, random.Random(4))
    assert pq.read_table(tmp_path / "short" / "trials.parquet").num_rows == 13
    run_search(long, tmp_path / "short", 2, random.Random(5))
    assert tables(tmp_path / "short") == tables(tmp_path / "long")


@pytest.mark.parametrize("rule", [None, {"min_stages": 1, "reduction": 3}])
def test_failing_trials_and_many_kills(rule: dict[str, int] | None, tmp_path: Path) -> None:
    """After an interruption an earlier batch may be unfinished while a later one is in."""

    def truth(trial: Trial) -> list[list[float]]:
        if random.Random(trial.id).random() < 0.2:
            raise ArithmeticError("diverged")
        return smooth(trial)

    one = {"objectives": {"average_accuracy": "maximize"}, "constraints": {}}
    spec = write_sweep_file(tmp_path, search=search("tpe", trials=30, **one), halving=rule)
    run_search(spec, tmp_path / "plain", 1, random.Random(0), truth)
    plain = Proposals(tmp_path / "plain", spec).read()
    for seed in range(12):
        run = tmp_path / f"{seed}"
        run_search(spec, run, 8, random.Random(seed), truth, deaths=8)
        assert Proposals(run, spec).read() == plain
        assert tables(run) == tables(tmp_path / "plain")


def test_a_setting_that_is_a_reference_of_another_one(tmp_path: Path) -> None:
    axes = {"method": ["fwd_prompt", "sequential"], "train.lr": [0.01, 0.03, 0.1]}
    spec = write_sweep_file(
        tmp_path, search=search("random", trials=6, batch=2, lag=0), axes=axes, references=["sequential"]
    )

    def truth(trial: Trial) -> list[list[float]]:
        return [[0.5, 0.1], [0.4, 0.5]]

    run_search(spec, tmp_path / "plain", 1, random.Random(0), truth)
    plain = tables(tmp_path / "plain")
    for seed in range(5):
        run_search(spec, tmp_path / f"{seed}", 4, random.Random(seed), truth, deaths=3)
        assert tables(tmp_path / f"{seed}") == plain
    rows = plain["trials"].to_pylist()
    # sequential with its own tuner is no reference of the pool's
    own = [row for row in rows if row["setting"] is not None]
    assert sorted(row["setting"] for row in own) == list(range(6))
    assert {row["state"] for row in own} == {"complete"}


def test_a_float_range_with_a_step_has_each_number_once(tmp_path: Path) -> None:
    axes = {"train.lr": {"low": 0.1, "high": 0.9, "step": 0.1}}
    for name in ("tpe", "nsga2", "random"):
        spec = write_sweep_file(tmp_path, search=search(name, trials=30), axes=axes)
        course = Course(spec, tmp_path / "nowhere")
        found: list[float] = []
        for batch in range(5):
            new = course.search.propose(batch)
            course.search.tell(new)
            found += [float(str(one.values["train.lr"])) for one in new]
        assert sorted(found) == [round(0.1 * n, 1) for n in range(1, 10)]


def test_the_order_of_axes_and_objectives_makes_another_search(tmp_path: Path) -> None:
    def rule(axes: list[str], objectives: list[str]) -> str:
        lines = {"train.lr": "{low: 0.01, high: 1.0}", "pool.size": "{low: 10, high: 40}"}
        better = {"average_accuracy": "maximize", "forgetting": "minimize"}
        path = tmp_path / "sweep.yaml"
        path.write_text(
            "name: s\nbenchmark: mini\nmodel: mini\nmethod: fwd_prompt\ntasks: 2\naxes:\n"
            + "".join(f"  {name}: {lines[name]}\n" for name in axes)
            + "search:\n  kind: sobol\n  trials: 4\n  objectives:\n"
            + "".join(f"    {name}: {better[name]}\n" for name in objectives)
        )
        return rule_of(load_spec(path))

    axes, objectives = ["train.lr", "pool.size"], ["average_accuracy", "forgetting"]
    rules = {rule(a, o) for a in (axes, axes[::-1]) for o in (objectives, objectives[::-1])}
    assert len(rules) == 4


@pytest.mark.parametrize(
    "keys",
    [
        {"seeds": [1]},
        {"base": {"train.steps": 7}},
        {"axes": {**SWEEP["axes"], "order": {"kind": "reverse"}}},  # type: ignore[dict-item]
        {"robust": {"statistic": "worst"}},
        {"halving": {"min_stages": 1}},
        {"resources": {"processes": 2}},
        {"search": search("tpe", seed=9)},
        {"search": search("nsga2")},
    ],
)
def test_what_changes_numbers_changes_the_rule(keys: dict[str, object], tmp_path: Path) -> None:
    plain = {"search": search("tpe")}
    before = rule_of(write_sweep_file(tmp_path, **plain))
    assert rule_of(write_sweep_file(tmp_path, **{**plain, **keys})) != before


@pytest.mark.parametrize(
    "keys",
    [
        {"search": search("tpe", trials=99)},
        {"name": "other"},
        {"references": ["sequential"]},
        {"resources": {"workers": 7}},
        {"tracking": {"mlflow": "sqlite:///elsewhere.db"}},
    ],
)
def test_what_changes_no_number_keeps_the_rule(keys: dict[str, object], tmp_path: Path) -> None:
    plain = {"search": search("tpe")}
    before = rule_of(write_sweep_file(tmp_path, **plain))
    assert rule_of(write_sweep_file(tmp_path, **{**plain, **keys})) == before


def test_failed_settings_are_told_as_failed(tmp_path: Path) -> None:
    def truth(trial: Trial) -> list[list[float]]:
        if float(str(trial.settings["train.lr"])) > 0.1:
            raise ArithmeticError("diverged")
        return smooth(trial)

    spec = write_sweep_file(tmp_path, search=search("tpe", trials=12))
    records = run_search(spec, tmp_path / "run", 2, random.Random(0), truth)
    rows = pq.read_table(tmp_path / "run" / "trials.parquet").to_pylist()
    assert {row["state"] for row in rows if row["status"] == "FAILED"} == {"failed"}
    assert {row["state"] for row in rows if row["status"] == "FINISHED"} == {"complete"}
    assert any(row["state"] == "failed" for row in rows)
    assert len(records.records) == 12


def test_settings_run_under_every_order_and_seed_with_their_references(tmp_path: Path) -> None:
    axes = {"train.lr": {"low": 0.001, "high": 1.0, "log": True}, "order": {"kind": "reverse"}}
    extra = {"projection.task_energy": 0.8, "pool.size": 40}
    spec = write_sweep_file(
        tmp_path,
        search=search("tpe", trials=4, batch=2),
        axes=axes,
        base=extra,
        seeds=[0, 1],
        references=["sequential"],
    )

    records = run_search(spec, tmp_path / "run", 3, random.Random(0), of_rate_alone, deaths=1)
    for number in range(4):
        cells = {(one.trial.order, one.trial.experiment.seed) for one in records.of_setting(number)}
        assert len(cells) == len(records.of_setting(number)) == 4
    rows = pq.read_table(tmp_path / "run" / "trials.parquet").to_pylist()
    references = [row for row in rows if row["method"] == "sequential"]
    assert len(references) == 16  # a rate of its own makes a reference of its own
    assert {row["setting"] for row in references} == {row["state"] for row in references} == {None}


def test_a_run_knows_its_trials_without_the_search(tmp_path: Path) -> None:
    spec = write_sweep_file(tmp_path, search=search("tpe", trials=9))
    records = run_search(spec, tmp_path / "run", 2, random.Random(0))
    assert run_trials_of(spec, tmp_path / "run") == [record.trial for record in records.records.values()]
    again = Records(tmp_path / "run", spec, run_trials_of(spec, tmp_path / "run"))
    assert again.read() == []
    before = tables(tmp_path / "run")
    again.write()
    assert tables(tmp_path / "run") == before


def test_another_rule_is_another_search_and_the_first_one_is_kept(tmp_path: Path) -> None:
    first = write_sweep_file(tmp_path, search=search("random", trials=6))
    run_search(first, tmp_path / "run", 2, random.Random(0))
    before = tables(tmp_path / "run")
    other = write_sweep_file(tmp_path, search=search("random", trials=6, seed=2))
    run_search(other, tmp_path / "run", 2, random.Random(0))
    rows = pq.read_table(tmp_path / "run" / "trials.parquet").to_pylist()
    assert sorted(row["status"] for row in rows) == ["FINISHED"] * 6 + ["NOT_IN_SWEEP"] * 6
    run_search(first, tmp_path / "run", 2, random.Random(0))
    rows = pq.read_table(tmp_path / "run" / "trials.parquet").to_pylist()
    assert [row["trial"] for row in rows][:6] == before["trials"]["trial"].to_pylist()
    assert [row["status"] for row in rows] == ["FINISHED"] * 6 + ["NOT_IN_SWEEP"] * 6


@pytest.mark.parametrize("torn", [1, 40])
def test_a_torn_line_costs_no_setting(torn: int, tmp_path: Path) -> None:
    spec = write_sweep_file(tmp_path, search=search("tpe", trials=12))
    run_search(spec, tmp_path / "run", 2, random.Random(0))
    before, file = tables(tmp_path / "run"), tmp_path / "run" / "proposals"
    file.write_bytes(file.read_bytes()[:-torn])
    run_search(spec, tmp_path / "run", 4, random.Random(1))
    assert tables(tmp_path / "run") == before


def test_a_space_that_is_used_up_ends_the_search(tmp_path: Path) -> None:
    axes = {"pool.size": [20, 40, 60], "projection.task_energy": [0.5, 0.8], "train.lr": [0.03]}
    for name in ("tpe", "random", "sobol", "nsga2"):
        spec = write_sweep_file(tmp_path, search=search(name, trials=30), axes=axes)
        records = run_search(spec, tmp_path / name, 2, random.Random(0))
        assert len(records.records) == 6


def test_halving_in_batches_is_the_same_for_any_workers_and_kills(tmp_path: Path) -> None:
    rule = {"min_stages": 1, "reduction": 3}
    one = {"objectives": {"average_accuracy": "maximize"}, "constraints": {}}
    spec = write_sweep_file(tmp_path, search=search("tpe", trials=24, **one), halving=rule)
    run_search(spec, tmp_path / "plain", 1, random.Random(0))
    plain = tables(tmp_path / "plain")
    states = plain["trials"]["state"].to_pylist()
    assert states.count("pruned") == 16
    assert states.count("complete") == 8
    for workers, deaths in [(2, 0), (8, 3)]:
        run = tmp_path / f"{workers}"
        run_search(spec, run, workers, random.Random(workers), deaths=deaths)
        assert tables(run) == plain


def test_pruned_settings_are_those_that_are_behind_for_any_workers_and_kills(tmp_path: Path) -> None:
    axes = {"train.lr": {"low": 0.0001, "high": 1.0, "log": True}, "order": {"kind": "all"}}
    one = {"objectives": {"average_accuracy": "maximize"}, "constraints": {}}
    spec = write_sweep_file(
        tmp_path, search=search("tpe", trials=18, **one), axes=axes, seeds=[0, 1, 2], robust={"pruner": "wilcoxon"}
    )

    records = run_search(spec, tmp_path / "plain", 1, random.Random(0), of_rate_alone)
    plain = tables(tmp_path / "plain")
    for workers, deaths in [(2, 0), (8, 3)]:
        run = tmp_path / f"{workers}"
        run_search(spec, run, workers, random.Random(workers), of_rate_alone, deaths=deaths)
        assert tables(run) == plain
    states = [setting_state(records.of_setting(setting)) for setting in range(18)]
    assert states[:6] == ["complete"] * 6  # proposed before there was a rival

    def mean(setting: int) -> float:
        done = [one for one in records.of_setting(setting) if one.status == "FINISHED"]
        return fmean(records.metrics(one, "validation")["average_accuracy"] or 0.0 for one in done)

    best = max(mean(setting) for setting in range(18) if states[setting] == "complete")
    pruned = [setting for setting in range(18) if states[setting] == "pruned"]
    assert pruned
    for setting in pruned:
        assert sum(one.status == "FINISHED" for one in records.of_setting(setting)) in (3, 4, 5)
        assert mean(setting) < best


def test_a_rival_keeps_to_the_constraints(tmp_path: Path) -> None:
    axes = {"train.lr": {"low": 0.0001, "high": 1.0, "log": True}, "order": {"kind": "all"}}
    # every setting has more, so that there is nothing to be behind
    one = {"objectives": {"average_accuracy": "maximize"}, "constraints": {"trained_parameters": 50.0}}
    spec = write_sweep_file(
        tmp_path, search=search("tpe", trials=15, **one), axes=axes, seeds=[0, 1, 2], robust={"pruner": "wilcoxon"}
    )

    records = run_search(spec, tmp_path / "run", 2, random.Random(0), of_rate_alone)
    assert {setting_state(records.of_setting(setting)) for setting in range(15)} == {"complete"}


def test_a_command_that_is_stopped_at_once_shows_what_there_was(tmp_path: Path) -> None:
    """With halving every trial has to pass its rungs again; until then its setting stands as before."""
    one = {"objectives": {"average_accuracy": "maximize"}, "constraints": {}}
    spec = write_sweep_file(tmp_path, search=search("tpe", trials=9, **one), halving={"reduction": 3})
    run_search(spec, tmp_path / "run", 2, random.Random(0))
    before = tables(tmp_path / "run")
    assert set(before["trials"]["state"].to_pylist()) == {"complete", "pruned"}
    records = Records(tmp_path / "run", spec, Course(spec, tmp_path / "run").trials())
    records.begin(lambda trial: "key", again=True)
    records.write()
    assert tables(tmp_path / "run")["trials"]["state"] == before["trials"]["state"]
