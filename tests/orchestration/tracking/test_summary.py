"""What the sweep's own run shows, what is said of times and data, and the switch for the machine's own figures."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcit_core.stages.results import StageResult
from orchestration.keep.provenance import Provenance, write_sweep
from orchestration.keep.records import Records
from orchestration.keep.stored import Times
from orchestration.keep.trial_record import TrialRecord
from orchestration.plan.sweep_file import load_spec, resolved
from orchestration.plan.trials import make_trials
from orchestration.results.reading import read_results
from orchestration.sweep import what_to_click
from orchestration.tracking.content import Data
from orchestration.tracking.data import data_of, tasks_of
from orchestration.tracking.summary import steps_of, summarise_results
from orchestration.tracking.times import FORMAT, moment, times_of
from orchestration.tracking.tracker import Tracker, wants_system_metrics
from tests.orchestration.tracking.test_tracking import (
    Cut,
    DyingTracker,
    _client,
    _runs,
    make_records,
    seen,
    stage,
    storage,
    template,
    uri_of,
)

__all__ = ["storage", "template"]  # fixtures

SWEEP = """\
name: {name}
benchmark: mini
tasks: [attribute, ground]
model: mini
method: fwd_prompt
axes:
  projection.task_energy: [0.5, 0.75]
  projection.mode: {modes}
seeds: {seeds}
references: [sequential]
"""
PROVENANCE: Provenance = {"run_id": "the RUN", "data": {"attribute": "a" * 16, "ground": "b" * 16}}


def sweep(
    storage: Path, name: str = "tracked", seeds: str = "[0, 1, 2]", failed: int = 0, modes: str = "[residual, both]"
) -> Records:
    """Two axes, every trial finished but for the last `failed`; the more energy, the more accuracy."""
    path = storage / f"{name}.yaml"
    path.write_text(SWEEP.format(name=name, seeds=seeds, modes=modes))
    spec = load_spec(path)
    run = storage / name
    run.mkdir(exist_ok=True)
    records = Records(run, spec, make_trials(spec))
    for i, record in enumerate(records.records.values()):
        energy = record.trial.settings["projection.task_energy"]
        shift = (energy if isinstance(energy, float) else 0.0) / 2 + record.trial.experiment.seed / 100
        record.stages = [stage(records, t, shift) for t in (-1, 0, 1)]
        record.status = "FAILED" if len(records.records) - i <= failed else "FINISHED"
    records.write()
    write_sweep(run, resolved(spec), PROVENANCE)
    return records


def track(records: Records) -> None:
    Tracker(uri_of(records.run.parent), records, PROVENANCE).sync(final=True)


def parent(storage: Path) -> Any:
    (found,) = [run for run in _runs(storage) if run.data.tags["mcit.kind"] == "sweep"]
    return found


def history(storage: Path, name: str) -> list[tuple[int, float]]:
    points = _client(storage).get_metric_history(parent(storage).info.run_id, name)
    return [(step, pytest.approx(value)) for step, value in sorted((point.step, point.value) for point in points)]


def test_the_parent_charts_the_means_by_axis_and_by_setting(storage: Path) -> None:
    records = sweep(storage)
    track(records)
    # accuracies of the last stage are 0.15 and 0.2, and what was shifted
    assert history(storage, "by task_energy x100/average_accuracy") == [(50, 0.435), (75, 0.56)]
    assert history(storage, "by task_energy x100 half width/average_accuracy")[0] == (50, 0.01 / 3**0.5 * 4.3026527)
    settings = history(storage, "by setting/average_accuracy")
    assert [step for step, _ in settings] == [1, 2, 3, 4, 5]
    assert [value for _, value in settings] == [0.435, 0.435, 0.56, 0.56, 0.185]  # the reference last
    run = parent(storage)
    assert run.data.tags["chosen.task_energy"] == "0.75"
    assert run.data.tags["chosen"].startswith("fwd_prompt, task_energy 0.75, mode ")
    note = run.data.tags["mlflow.note.content"]
    assert f"3. {run.data.tags['chosen']}\n" in note
    assert note.endswith("\n5. sequential")
    assert not any(name.startswith("by mode") for name in run.data.metrics)  # no numbers


def test_a_second_look_changes_nothing_in_the_parent(storage: Path) -> None:
    records = sweep(storage)
    track(records)
    before, run = seen(uri_of(storage), "tracked"), parent(storage).info.run_id
    track(records)
    assert seen(uri_of(storage), "tracked") == before
    assert parent(storage).info.run_id == run


def test_other_means_stand_beside_those_before_and_the_parent_stays(storage: Path) -> None:
    track(sweep(storage, failed=1))
    client, old = _client(storage), parent(storage)
    assert old.info.status == "FAILED"
    client.log_metric(old.info.run_id, "by hand/checked", 12.0, timestamp=7, step=3)
    client.log_param(old.info.run_id, "chosen_by", "me")
    client.set_tag(old.info.run_id, "mine", "kept")
    client.log_text(old.info.run_id, "hello", "mine.txt")
    children = {run.info.run_id for run in _runs(storage) if run.data.tags["mcit.kind"] == "trial"}
    before = history(storage, "by setting/average_accuracy")
    records = sweep(storage)
    track(records)
    new = parent(storage)
    assert new.info.run_id == old.info.run_id
    assert new.data.tags["mine"] == "kept"
    assert new.data.params["chosen_by"] == "me"
    (point,) = client.get_metric_history(new.info.run_id, "by hand/checked")
    assert (point.value, point.timestamp, point.step) == (12.0, 7, 3)
    assert "mine.txt" in [file.path for file in client.list_artifacts(new.info.run_id)]
    after = history(storage, "by setting/average_accuracy")
    assert len(after) == len(before) + 1
    assert {step for step, _ in after} == {1, 2, 3, 4, 5}
    now = {run.info.run_id for run in _runs(storage) if run.data.tags.get("mlflow.parentRunId") == new.info.run_id}
    assert len(now & children) == len(children) - 1  # the failed one was made anew
    assert len(now) == len(records.records)


@pytest.mark.parametrize("when", [pytest.param("half", marks=pytest.mark.slow), "after"])
def test_a_kill_while_a_sweep_is_extended_heals_with_the_next_sync(storage: Path, when: str) -> None:
    uri = uri_of(storage)

    def small(name: str, failed: int = 0) -> Records:
        return sweep(storage, name, "[0]", failed, "[both]")

    track(small("undisturbed", failed=1))
    track(small("undisturbed"))
    wanted = seen(uri, "undisturbed")
    k, cut = 0, True
    while cut:
        k += 1
        name = f"killed{k}"
        track(small(name, failed=1))
        cut = False
        try:
            DyingTracker(uri, small(name), PROVENANCE, k=k, when=when).sync(final=True)
        except Cut:
            cut = True
        track(small(name))
        assert seen(uri, name) == wanted, f"cut {when} call {k}"
    assert k > 5


def test_a_server_that_knows_no_datasets_has_all_else(storage: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class NoSuchEndpointError(Exception):
        error_code = "ENDPOINT_NOT_FOUND"

    def refuse(*_: object) -> None:
        raise NoSuchEndpointError

    monkeypatch.setattr("mlflow.tracking.MlflowClient.log_inputs", refuse)
    records = sweep(storage)
    track(records)
    runs = _runs(storage)
    assert len(runs) == len(records.records) + 1
    assert all(run.data.metrics for run in runs)


def test_what_nothing_finished_any_more_has_chosen_is_nothing(storage: Path) -> None:
    track(sweep(storage))
    assert "chosen" in parent(storage).data.tags
    records = sweep(storage)
    for record in records.records.values():
        record.status = "FAILED"
    records.write()
    track(records)
    assert not [name for name in parent(storage).data.tags if name.startswith("chosen")]


def test_an_interrupted_sweep_says_no_means(storage: Path) -> None:
    records = sweep(storage)
    next(iter(records.records.values())).status = "UNFINISHED"
    track(records)
    run = parent(storage)
    assert run.info.status == "KILLED"
    assert not run.data.metrics
    assert not run.data.params


@pytest.mark.parametrize(
    ("values", "scale", "steps"),
    [
        ([1, 4, 20], "", [1, 4, 20]),
        ([0.5, 0.95], " x100", [50, 95]),
        ([0.0001, 0.003, 1], " x10000", [1, 30, 10000]),
        ([1 / 3, 2 / 3], " in turn", [1, 2]),
        ([-1, 1], " in turn", [1, 2]),
        ([1e-12, 1e-3], " in turn", [1, 2]),
        ([2**60, 2**61], " in turn", [1, 2]),
    ],
)
def test_the_values_of_an_axis_become_steps(values: list[float], scale: str, steps: list[int]) -> None:
    assert steps_of(values) == (scale, steps)


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False) | st.integers(), min_size=2, unique=True))
def test_steps_rise_with_the_values(values: list[float]) -> None:
    steps = steps_of(sorted(values))[1]
    assert steps == sorted(set(steps))
    assert len(steps) == len(values)
    assert 0 <= steps[0] <= steps[-1] < 2**63


def test_a_sweep_of_one_setting_has_its_mean_and_no_list(tmp_path: Path) -> None:
    run = tmp_path / "one"
    run.mkdir()
    (tmp_path / "one.yaml").write_text(
        "{name: one, benchmark: mini, tasks: [attribute], model: mini, method: fwd_prompt}"
    )
    spec = load_spec(tmp_path / "one.yaml")
    records = Records(run, spec, make_trials(spec))
    (record,) = records.records.values()
    record.stages, record.status = [stage(records, t) for t in (-1, 0)], "FINISHED"
    records.write()
    write_sweep(run, resolved(spec), {})
    found = summarise_results(read_results(run))
    assert ("by setting/average_accuracy", 1) in [point[:2] for point in found.points]
    assert not found.legend
    assert found.chosen == {"chosen": "fwd_prompt"}


def test_children_have_what_differs_once_and_first(storage: Path) -> None:
    track(sweep(storage))
    trials = [run for run in _runs(storage) if run.data.tags["mcit.kind"] == "trial"]
    for run in trials:
        params = run.data.params
        assert params["axis.seed"] == run.data.tags["seed"]
        assert params["axis.method"] == run.data.tags["method"]
        assert not {"seed", "method", "projection.task_energy", "projection.mode"} & params.keys()
        assert "order" in params  # the same in all
        assert ("axis.task_energy" in params) == (run.data.tags["method"] == "fwd_prompt")
        assert "average_accuracy" in run.data.metrics
    told = {(run.data.params.get("axis.task_energy"), run.data.params.get("axis.mode")) for run in trials}
    assert told == {(None, None)} | {(energy, mode) for energy in ("0.5", "0.75") for mode in ("residual", "both")}


def test_runs_say_what_data_they_read(storage: Path) -> None:
    track(sweep(storage))
    datasets = [(run.data.tags["mcit.kind"], run.inputs.dataset_inputs) for run in _runs(storage)]
    for kind, inputs in datasets:
        assert [given.dataset.name for given in inputs] == (
            ["mini/attribute", "mini/ground"] if kind == "sweep" else ["mini"]
        )
        assert all(given.tags[0].value == "train, validation, test" for given in inputs)
    assert len({inputs[0].dataset.digest for kind, inputs in datasets if kind == "trial"}) == 1


def test_a_trial_on_other_data_has_a_run_of_its_own(storage: Path) -> None:
    track(sweep(storage))
    before = {run.info.run_id for run in _runs(storage) if run.data.tags["mcit.kind"] == "trial"}
    other: Provenance = {**PROVENANCE, "data": {"attribute": "c" * 16, "ground": "b" * 16}}
    Tracker(uri_of(storage), sweep(storage), other).sync(final=True)
    trials = [run for run in _runs(storage) if run.data.tags["mcit.kind"] == "trial"]
    assert not before & {run.info.run_id for run in trials}
    assert {len(run.inputs.dataset_inputs) for run in trials} == {1}


def test_data_of_several_benchmarks_and_of_none_that_is_known(tmp_path: Path) -> None:
    trial = next(iter(make_records(tmp_path).records.values())).trial
    (known,) = data_of(trial, {"data": {"mini": {"attribute": "1", "ground": "2"}, "other": {"x": "3"}}})
    assert known == Data("mini", known.digest, '{"benchmark": "mini"}', known.profile, "train, validation, test")
    assert data_of(trial, {"data": {"attribute": "1", "ground": "2"}})[0].digest == known.digest
    assert data_of(trial, {"data": {"attribute": "1", "ground": "3"}})[0].digest != known.digest
    for nothing in ({}, {"data": "?"}, {"data": {"attribute": "1"}}):
        assert data_of(trial, nothing) == ()
    assert [data.name for data in tasks_of([trial], {"data": {"attribute": "1"}})] == ["mini/attribute"]


def record_of(tmp_path: Path, times: Times) -> TrialRecord:
    records = make_records(tmp_path)
    record = next(iter(records.records.values()))
    record.stages = [
        StageResult(t, "attribute", metrics={"seconds/train": 8.0, "seconds/evaluate": 2.0}) for t in (0, 1)
    ]
    record.times = times
    return record


def test_times_that_were_written_down_count(tmp_path: Path) -> None:
    """The second stage was paused for 20 s before its 10; the third of none came from the store."""
    found = times_of(record_of(tmp_path, Times(100.0, [110.0, 140.0], 141.0)), otherwise=5.0)
    assert (found.begun, found.ended, found.recorded) == (100_000, 141_000, True)
    assert [(at.begun, at.trained, at.done) for at in found.stages] == [
        (100_000, 108_000, 110_000),
        (130_000, 138_000, 140_000),
    ]
    assert [found.stages[1].of_step(i, 4) for i in range(4)] == [132_000, 134_000, 136_000, 138_000]


def test_what_came_from_the_store_is_not_before_its_trial(tmp_path: Path) -> None:
    found = times_of(record_of(tmp_path, Times(100.0, [100.1, 100.2], 100.3)), otherwise=5.0)
    assert all(100_000 <= at.begun <= at.trained <= at.done <= 100_300 for at in found.stages)


@pytest.mark.parametrize("times", [Times(), Times(100.0, [110.0]), Times(None, [1.0, 2.0], 3.0)])
def test_without_times_the_durations_are_true(tmp_path: Path, times: Times) -> None:
    found = times_of(record_of(tmp_path, times), otherwise=5.0)
    assert (found.begun, found.ended, found.recorded) == (5_000, 25_000, False)
    assert [at.done for at in found.stages] == [15_000, 25_000]


def test_a_sweep_and_its_trials_have_their_own_times_however_late_they_are_logged(storage: Path) -> None:
    records = sweep(storage)
    now = time.time() - 7200
    told = {name: time.strftime(FORMAT, time.localtime(now + s)) for name, s in (("started", 0), ("finished", 900))}
    for i, record in enumerate(records.records.values()):
        begun = now + 30 * i
        record.times = Times(begun, [begun + 1, begun + 12, begun + 24], begun + 25)
    tracker = Tracker(uri_of(storage), records, {**PROVENANCE, **told})
    tracker.sync(final=True)
    assert moment(told, "started") == int(now)
    run = parent(storage)
    assert (run.info.start_time, run.info.end_time) == (int(now) * 1000, int(now + 900) * 1000)
    for run in _runs(storage):
        record = records.records.get(run.data.tags.get("mcit.trial", ""))
        if record is None:
            continue
        begun = round(1000 * (record.times.begun or 0))
        assert (run.info.start_time, run.info.end_time) == (begun, begun + 25_000)
        points = _client(storage).get_metric_history(run.info.run_id, "average_accuracy")
        assert sorted((point.step, point.timestamp - begun) for point in points) == [(0, 12_000), (1, 24_000)]
        loss = sorted(point.timestamp for point in _client(storage).get_metric_history(run.info.run_id, "loss"))
        assert begun < loss[0] < loss[1] <= begun + 12_000 < loss[2]
        assert "times" not in run.data.tags


def test_a_run_that_an_earlier_version_began_when_it_logged_is_made_anew(storage: Path) -> None:
    records = sweep(storage)
    track(records)  # no times are known, and now is the start
    early = {run.info.run_id for run in _runs(storage) if run.data.tags["mcit.kind"] == "trial"}
    assert all(run.data.tags["times"] for run in _runs(storage) if run.info.run_id in early)
    for record in records.records.values():
        record.times = Times(1000.0, [1001.0, 1002.0, 1003.0], 1004.0)
    for _ in range(2):
        track(records)
        trials = [run for run in _runs(storage) if run.data.tags["mcit.kind"] == "trial"]
        assert {run.info.start_time for run in trials} == {1_000_000}
        assert not early & {run.info.run_id for run in trials}


def test_a_later_command_that_finds_all_finished_prolongs_nothing(storage: Path) -> None:
    records = sweep(storage)
    for record in records.records.values():
        record.times = Times(1000.0, [1001.0, 1002.0, 1003.0], 1004.0)
    later = {"started": "2030-01-01 00:00:00", "finished": "2030-01-01 00:01:00"}
    Tracker(uri_of(storage), records, {**PROVENANCE, **later}).sync(final=True)
    info = parent(storage).info
    assert (info.start_time, info.end_time) == (1_000_000, 1_004_000)


def test_the_switch_for_the_machines_figures(storage: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", raising=False)
    file = storage / "switched.yaml"
    text = SWEEP.format(name="switched", seeds="[0]", modes="[both]")
    for tracking, variable, wanted in (
        ("", None, False),
        ("tracking: {system_metrics: true}\n", None, True),
        ("", "true", True),
        ("", "false", False),
    ):
        file.write_text(text + tracking)
        if variable:
            monkeypatch.setenv("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", variable)
        spec = load_spec(file)
        assert wants_system_metrics(spec) == wanted
        again = storage / "again.yaml"
        again.write_text(repr(resolved(spec)).replace("None", "null").replace("True", "true").replace("False", "false"))
        assert load_spec(again) == spec


def wait_until(true: Callable[[], bool], seconds: float = 30) -> bool:
    begun = time.monotonic()
    while not true() and time.monotonic() - begun < seconds:
        time.sleep(0.1)
    return true()


def test_the_machine_is_watched_until_the_sweep_ends(storage: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.2")
    records = sweep(storage)
    plain = Tracker(uri_of(storage), records, PROVENANCE)
    plain.sync()
    tracker = Tracker(uri_of(storage), records, PROVENANCE, watch=True)
    tracker.sync()
    name = "system/cpu_utilization_percentage"
    assert wait_until(lambda: name in parent(storage).data.metrics)
    tracker.mirror.forget()  # as after a failure; the steps go on
    tracker.sync()
    before = parent(storage).info.run_id
    assert wait_until(lambda: len(_client(storage).get_metric_history(before, name)) > 3)
    tracker.sync(final=True)
    run = parent(storage)
    assert run.info.status == "FINISHED"
    points = _client(storage).get_metric_history(run.info.run_id, name)
    steps = [point.step for point in points]
    assert len(set(steps)) == len(steps)
    time.sleep(0.5)
    assert len(_client(storage).get_metric_history(run.info.run_id, name)) == len(points)
    assert not any(
        name.startswith("system/")
        for run in _runs(storage)
        for name in run.data.metrics
        if run.data.tags["mcit.kind"] == "trial"
    )


def test_what_to_click_names_the_page_and_the_axis(storage: Path) -> None:
    spec = sweep(storage).spec
    lines = what_to_click("sqlite:////x/mlflow.db", "7", spec)
    assert "http://127.0.0.1:5000/#/experiments/7/runs?workflowType=machine_learning" in lines[0]
    assert "axis.task_energy and axis.mode with average_accuracy" in lines[2]
    (there, *_) = what_to_click("https://user:secret@host/mlflow/", "7", spec)
    assert "host/mlflow/#/experiments/7/" in there
    assert "secret" not in there
