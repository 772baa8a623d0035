"""MLflow says what the records say, whatever was cut short on the way. The real MLflow on sqlite, no Ray."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mcit_core.stages.results import Cell, StageResult, Trace
from orchestration.keep.provenance import run_id, write_sweep
from orchestration.keep.records import Records
from orchestration.keep.tables import read_rows
from orchestration.keep.trial_record import TrialRecord
from orchestration.plan.sweep_file import load_spec, resolved
from orchestration.plan.trials import make_trials
from orchestration.tracking import artefacts
from orchestration.tracking.background import BackgroundTracker
from orchestration.tracking.content import mlflow_name
from orchestration.tracking.tracker import Tracker

SWEEP = """\
name: {name}
benchmark: mini
tasks: {tasks}
model: mini
method: fwd_prompt
axes:
  projection.task_energy: [0.5, 0.99]
"""


def make_records(storage: Path, name: str = "tracked", tasks: str = "[attribute, ground]") -> Records:
    storage.mkdir(exist_ok=True)
    path = storage / f"{name}.yaml"
    path.write_text(SWEEP.format(name=name, tasks=tasks))
    spec = load_spec(path)
    run = storage / name
    run.mkdir(exist_ok=True)
    return Records(run, spec, make_trials(spec))


def stage(records: Records, t: int, shift: float = 0.0) -> StageResult:
    tasks = records.spec.tasks
    cells = [
        Cell(task, split, (t + i + 2) / 20 + shift, 0.9, 30)
        for i, task in enumerate(tasks)
        for split in ("validation", "test")
    ]
    metrics = {"loss/last": 1 / (t + 2), "seconds/train": 1.5, "pool/usage/0": 0.25} if t >= 0 else {}
    traces: dict[str, Trace] = {"loss": [3.0, 2.0], "ema/weight": [0.9, 0.5], "ema/raw": [None, 0.5]}
    return StageResult(t, tasks[t] if t >= 0 else None, cells, metrics, traces if t >= 0 else {})


def fill(records: Records, failed: bool = False, shift: float = 0.0) -> Records:
    """Two trials: the first finished; the second finished too, or failed in its last stage."""
    last = len(records.spec.tasks)
    for i, record in enumerate(records.records.values()):
        stop = last - 1 if failed and i else last
        record.stages = [stage(records, t, shift) for t in range(-1, stop)]
        record.status, record.error = ("FAILED", "boom\ntraceback") if failed and i else ("FINISHED", None)
    return records


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from mlflow.tracking import MlflowClient

    path = tmp_path_factory.mktemp("template") / "mlflow.db"
    MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def storage(template: Path, tmp_path: Path) -> Path:
    shutil.copy(template, tmp_path / "mlflow.db")
    return tmp_path


def uri_of(storage: Path) -> str:
    return f"sqlite:///{storage / 'mlflow.db'}"


def sync(records: Records, commit: str = "one", final: bool = True) -> None:
    Tracker(uri_of(records.run.parent), records, provenance(commit)).sync(final)


def provenance(commit: str = "one") -> dict[str, Any]:
    return {"commit": commit, "run_id": "the RUN", "versions": {"torch": "1"}}


def seen(uri: str, name: str) -> dict[str, Any]:
    """Everything that counts of an experiment: name of a run -> tags, params, points, status, artefacts."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name(name)
    assert experiment
    runs = client.search_runs([experiment.experiment_id])
    parents = [run.info.run_id for run in runs if run.data.tags["mcit.kind"] == "sweep"]
    assert len(parents) == 1
    found: dict[str, Any] = {}
    for run in runs:
        tags = dict(run.data.tags)
        key = tags.get("mcit.trial", "parent")
        assert key not in found, "two runs of one trial"
        if key != "parent":
            assert tags.pop("mlflow.parentRunId") == parents[0]
        changing = {"folder", "sweep", "mlflow.runName", "mcit.run"} if key == "parent" else {"sweep"}
        points = [
            (metric, point.step, point.value)
            for metric in run.data.metrics
            for point in client.get_metric_history(run.info.run_id, metric)
        ]
        files = sorted(file.path for file in client.list_artifacts(run.info.run_id))
        kept = {tag: value for tag, value in tags.items() if tag not in changing}
        found[key] = (kept, run.data.params, sorted(points), run.info.status, files)
    return found


def test_every_point_stands_once(storage: Path) -> None:
    records = fill(make_records(storage))
    sync(records)
    found = seen(uri_of(storage), "tracked")
    assert len(found) == 3
    assert found["parent"][3] == "FINISHED"
    for record in records.records.values():
        tags, params, points, status, files = found[record.trial.id]
        assert status == "FINISHED"
        assert tags["commit"] == "one"
        assert params["pool.size"] == "60"
        assert files == ["accuracy_matrix.csv", "accuracy_matrix.png", "experiment.yaml"]
        accuracy = [(name, step, value) for name, step, value in points if name.startswith("accuracy/")]
        wanted = [("accuracy/attribute", 0, 0.1), ("accuracy/attribute", 1, 0.15)]
        wanted += [("accuracy/ground", 0, 0.15), ("accuracy/ground", 1, 0.2)]
        assert accuracy == wanted
        assert ("loss/last", 1, 1 / 3) in points
        assert ("average_accuracy", 1, pytest.approx(0.175)) in points
    sync(records)
    assert seen(uri_of(storage), "tracked") == found


def test_runs_have_names_that_a_person_reads_and_the_sweep_says_what_came_out(storage: Path) -> None:
    from mlflow.tracking import MlflowClient

    records = fill(make_records(storage))
    records.write()
    write_sweep(records.run, resolved(records.spec), provenance())
    sync(records)
    client = MlflowClient(uri_of(storage))
    runs = client.search_runs([client.get_experiment_by_name("tracked").experiment_id])
    names = {run.data.tags["mlflow.runName"] for run in runs if run.data.tags["mcit.kind"] == "trial"}
    assert names == {"fwd_prompt task_energy=0.5 seed=0", "fwd_prompt task_energy=0.99 seed=0"}
    (note,) = [found for run in runs if (found := run.data.tags.get("mlflow.note.content"))]
    assert note.startswith("- **asked**: which of 2 settings")
    assert "- **take**: fwd_prompt, task_energy 0.5" in note


def test_a_failed_trial_that_then_finishes_keeps_nothing_of_its_failure(storage: Path) -> None:
    sync(fill(make_records(storage), failed=True))
    before = seen(uri_of(storage), "tracked")
    assert {run[3] for name, run in before.items() if name != "parent"} == {"FINISHED", "FAILED"}
    assert before["parent"][3] == "FAILED"
    sync(fill(make_records(storage)), commit="two")
    after = seen(uri_of(storage), "tracked")
    sync(fill(make_records(storage, "undisturbed")), commit="two")
    assert after == seen(uri_of(storage), "undisturbed")
    assert after["parent"][0]["commit"] == "two"
    assert not any("error" in run[0] for run in after.values())


def test_other_numbers_after_a_change_of_code_replace_the_old_ones(storage: Path) -> None:
    sync(fill(make_records(storage)))
    sync(fill(make_records(storage), shift=0.1), commit="two")
    after = seen(uri_of(storage), "tracked")
    sync(fill(make_records(storage, "undisturbed"), shift=0.1), commit="two")
    assert after == seen(uri_of(storage), "undisturbed")


def test_a_reference_that_finishes_later_adds_its_metric_only(storage: Path) -> None:
    records = make_records(storage)
    path = storage / "tracked.yaml"
    path.write_text(path.read_text() + "references: [direct]\n")
    spec = load_spec(path)
    records = fill(Records(records.run, spec, make_trials(spec)))
    direct, *others = records.records.values()
    direct.status = "UNFINISHED"
    tracker = Tracker(uri_of(storage), records, provenance())
    tracker.sync()
    runs = {name: run for name, run in seen(uri_of(storage), "tracked").items() if name != "parent"}
    assert len(runs) == len(others)
    direct.status = "FINISHED"
    tracker.sync(final=True)
    after = seen(uri_of(storage), "tracked")
    for name, run in runs.items():
        new = set(after[name][2]) - set(run[2])
        names = {point[0].removeprefix("validation/") for point in new}
        assert names == {"transfer_to_direct", "intransigence"}
        assert set(run[2]) <= set(after[name][2])


def test_nan_and_infinity_are_not_logged_twice(storage: Path) -> None:
    records = fill(make_records(storage))
    for record in records.records.values():
        record.stages[-1].metrics.update({"loss/last": float("nan"), "loss/first": float("inf")})
    sync(records)
    before = seen(uri_of(storage), "tracked")
    for run in _runs(storage):  # as if the last write had been lost
        if "mcit.content" in run.data.tags:
            _client(storage).delete_tag(run.info.run_id, "mcit.content")
    ids = {run.info.run_id for run in _runs(storage)}
    sync(records)
    assert {run.info.run_id for run in _runs(storage)} == ids
    after = seen(uri_of(storage), "tracked")
    assert repr(after) == repr(before)


def test_what_a_kill_left_running_is_ended(storage: Path) -> None:
    records = fill(make_records(storage))
    sync(records, final=False)
    assert {run.info.status for run in _runs(storage)} == {"RUNNING", "FINISHED"}
    for run in _runs(storage):
        _client(storage).update_run(run.info.run_id, status="RUNNING")
    *_, last = records.records.values()
    last.status = "UNFINISHED"
    sync(records)
    found = seen(uri_of(storage), "tracked")
    assert found["parent"][3] == "KILLED"
    assert found[last.trial.id][3] == "KILLED"
    last.status = "FINISHED"
    sync(records)
    assert {run[3] for run in seen(uri_of(storage), "tracked").values()} == {"FINISHED"}


def test_a_fresh_run_has_a_parent_of_its_own_and_a_resumed_one_keeps_it(storage: Path) -> None:
    records = fill(make_records(storage))
    identities = []
    for fresh in (True, False, True):
        if fresh:  # an empty folder
            for file in records.run.iterdir():
                file.unlink()
        identity = run_id(records.run)
        write_sweep(records.run, resolved(records.spec), identity)
        Tracker(uri_of(storage), records, identity).sync(final=True)
        identities.append(identity["run_id"])
    assert identities[0] == identities[1] != identities[2]
    kinds = [run.data.tags["mcit.kind"] for run in _runs(storage)]
    assert (kinds.count("sweep"), kinds.count("trial")) == (2, 4)


@pytest.mark.parametrize("lost", [(".identity",), ("sweep.yaml",), (".identity", "sweep.yaml")])
def test_a_run_that_has_lost_its_identity_is_not_there_twice(storage: Path, lost: tuple[str, ...]) -> None:
    records = fill(make_records(storage))
    for _ in range(3):
        identity = run_id(records.run)
        write_sweep(records.run, resolved(records.spec), identity)
        (records.run / "journal").touch()
        Tracker(uri_of(storage), records, identity).sync(final=True)
        for name in lost:
            (records.run / name).unlink(missing_ok=True)
    assert len(seen(uri_of(storage), "tracked")) == 3


def test_a_killed_sweep_whose_folder_another_has_runs_no_more(storage: Path) -> None:
    """Of `--fresh` after a kill, and (found by `tests.chaos`) where a RUN lost all that it was known by."""
    records = fill(make_records(storage))
    killed = run_id(records.run)
    Tracker(uri_of(storage), records, killed).sync()
    client = _client(storage)
    of_killed = {run.info.run_id for run in _runs(storage)}
    child = next(run for run in _runs(storage) if run.data.tags["mcit.kind"] == "trial")
    client.update_run(child.info.run_id, status="RUNNING")
    elsewhere = client.create_run(child.info.experiment_id, tags={"mcit.kind": "sweep", "folder": str(records.run)})
    (records.run / ".identity").unlink()
    Tracker(uri_of(storage), records, run_id(records.run)).sync(final=True)
    statuses = {run.info.run_id: run.info.status for run in _runs(storage)}
    assert statuses.pop(elsewhere.info.run_id) == "RUNNING"  # of another machine
    assert {statuses[run] for run in of_killed} == {"KILLED", "FINISHED"}
    assert statuses[child.info.run_id] == "KILLED"
    assert "RUNNING" not in statuses.values()


def test_a_damaged_identity_is_not_another_one(storage: Path) -> None:
    """Found by `tests.chaos`: a flipped bit of a digit gives another digit, and MLflow had the sweep twice."""
    run = make_records(storage).run
    known = run_id(run)
    write_sweep(run, {}, known)
    sound = (run / ".identity").read_bytes()
    for place in range(len(sound)):
        for bit in range(7):
            damaged = bytearray(sound)
            damaged[place] ^= 1 << bit
            (run / ".identity").write_bytes(damaged)
            assert run_id(run) == known, bytes(damaged)
    for end in range(len(sound)):
        (run / ".identity").write_bytes(sound[:end])
        assert run_id(run) == known, sound[:end]


def _client(storage: Path) -> Any:
    from mlflow.tracking import MlflowClient

    return MlflowClient(uri_of(storage))


def _runs(storage: Path) -> list[Any]:
    client = _client(storage)
    return list(client.search_runs([client.get_experiment_by_name("tracked").experiment_id]))


class Cut(Exception):
    pass


class Dying:
    """The real client, whose k-th call is cut short, with `half` of a batch done (of another call: nothing) or all."""

    def __init__(self, client: Any, k: int, when: str) -> None:
        self.client, self.k, self.when, self.calls = client, k, when, 0

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.client, name)

        def call(*args: Any, **more: Any) -> Any:
            self.calls += 1
            if self.calls != self.k:
                return method(*args, **more)
            if self.when == "after":
                method(*args, **more)
            elif self.when == "half" and name == "log_batch" and len(args) > 1:
                method(args[0], args[1][: len(args[1]) // 2])
            raise Cut(name)

        return call


class DyingTracker(Tracker):
    def __init__(self, *args: Any, k: int, when: str) -> None:
        super().__init__(*args)
        self.dying: Dying | None = None
        opened = self.mirror._open

        def open_dying() -> Any:
            self.dying = Dying(opened(), k, when)
            return self.dying

        self.mirror._open = open_dying  # type: ignore[method-assign]


@pytest.mark.parametrize("when", ["half", "after"])
def test_a_kill_at_any_call_heals_with_the_next_sync(storage: Path, when: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The RUN has an old failure behind it, so that runs are made, mended, deleted and ended on the way."""
    drawn: dict[str, bytes] = {}
    draw = artefacts._matrix_picture

    def drawn_once(path: Path, record: TrialRecord) -> None:
        matrix = repr(record.matrix("test"))
        if matrix not in drawn:
            draw(path, record)
            drawn[matrix] = path.read_bytes()
        path.write_bytes(drawn[matrix])

    monkeypatch.setattr(artefacts, "_matrix_picture", drawn_once)
    uri = uri_of(storage)
    sync(fill(make_records(storage, "undisturbed"), failed=True))
    sync(fill(make_records(storage, "undisturbed")), commit="two")
    wanted = seen(uri, "undisturbed")
    k, cut = 0, True
    while cut:
        k += 1
        name = f"killed{k}"
        make_records(storage, name)
        cut = False
        for round, commit in enumerate(("one", "two")):
            records = fill(make_records(storage, name), failed=not round)
            tracker = DyingTracker(uri, records, provenance(commit), k=k, when=when)
            try:
                tracker.sync(final=True)
            except Cut:
                cut = True
        Tracker(uri, fill(make_records(storage, name)), provenance("two")).sync(final=True)
        assert seen(uri, name) == wanted, f"cut {when} call {k}"
    assert k > 15


def test_a_name_that_mlflow_forbids_stops_nothing(storage: Path) -> None:
    records = fill(make_records(storage))
    first = next(iter(records.records.values()))
    names = ["loss/(train)", "loss//twice", "loss/../up", "loss/" + 300 * "x", "loss/größe"]
    for name in names:
        first.stages[1].metrics[name] = 0.5
    sync(records)
    points = {name for name, *_ in seen(uri_of(storage), "tracked")[first.trial.id][2]}
    assert {mlflow_name(name) for name in names} <= points
    assert {"loss/_train_", "loss__twice"} <= points


@given(st.text(min_size=1, max_size=400) | st.text("./:", min_size=1, max_size=8))
@example(".")
@settings(deadline=None)  # the first call imports mlflow
def test_every_name_becomes_one_that_mlflow_takes(name: str) -> None:
    from mlflow.utils.validation import _validate_length_limit, _validate_metric_name

    made = mlflow_name(name)
    _validate_metric_name(made)
    _validate_length_limit("Metric name", 250, made)
    assert mlflow_name(made) == made


def test_a_large_matrix_is_one_batch(storage: Path) -> None:
    records = fill(make_records(storage, tasks="null"))
    record = next(iter(records.records.values()))
    for result in record.stages:  # as many metrics of each stage as a prompt pool has
        result.metrics.update({f"pool/measure{i}": 0.5 for i in range(25)})

    class Counting(Dying):
        def __getattr__(self, name: str) -> Any:
            if name == "log_batch":
                batches.append(1)
            return getattr(self.client, name)

    batches: list[int] = []
    tracker = Tracker(uri_of(storage), records, provenance())
    opened = tracker.mirror._open
    tracker.mirror._open = lambda: Counting(opened(), 0, "")  # type: ignore[method-assign, assignment, return-value]
    tracker.sync()
    assert len(batches) == len(records.records)


def test_an_ended_trial_is_looked_at_alone_and_a_reference_with_all(
    storage: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = storage / "tracked.yaml"
    path.write_text(SWEEP.format(name="tracked", tasks="[attribute, ground]") + "references: [direct]\n")
    spec = load_spec(path)
    (storage / "tracked").mkdir()
    records = Records(storage / "tracked", spec, make_trials(spec))
    direct, first, second = records.records
    for trial in (first, second):
        records.records[trial].status = "FINISHED"
    tracker = Tracker(uri_of(storage), records, provenance())
    written: list[str] = []
    monkeypatch.setattr(tracker, "_log_trial", lambda record: written.append(record.trial.id))
    tracker.sync(only=[first])
    tracker.sync(only=[first])
    assert written == [first]
    records.records[direct].status = "FINISHED"  # what the others are compared with
    tracker.sync(only=[direct])
    assert written == [first, direct, first, second]


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def test_a_dead_server_is_told_once_and_holds_nothing_up(storage: Path) -> None:
    uri = f"http://127.0.0.1:{free_port()}"
    told: list[str] = []
    tracker = BackgroundTracker(Tracker(uri, fill(make_records(storage)), provenance()), told.append)
    begun = time.monotonic()
    tracker.request()
    tracker.request()
    assert time.monotonic() - begun < 0.1
    assert not tracker.finish()
    assert time.monotonic() - begun < 15
    assert len(told) == 1
    assert uri in told[0]


def start_server(storage: Path, port: int) -> subprocess.Popen[bytes]:
    """A real tracking server on loopback, in a process group of its own."""
    words = ["--host", "127.0.0.1", "--port", str(port), "--workers", "1", "--backend-store-uri", uri_of(storage)]
    server = subprocess.Popen(
        [sys.executable, "-m", "mlflow", "server", *words, "--artifacts-destination", str(storage / "served")],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    for _ in range(240):
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return server
        except OSError:
            time.sleep(0.5)
    kill(server)
    raise TimeoutError("the tracking server did not start")


def kill(server: subprocess.Popen[bytes]) -> None:
    os.killpg(server.pid, signal.SIGKILL)
    server.wait()


@pytest.mark.slow
def test_a_server_killed_and_started_again_has_everything(storage: Path) -> None:
    port = free_port()
    uri = f"http://127.0.0.1:{port}"
    records = fill(make_records(storage))
    *_, last = records.records.values()
    last.status = "UNFINISHED"
    told: list[str] = []
    server = start_server(storage, port)
    try:
        inner = Tracker(uri, records, provenance())
        inner.sync()
        tracker = BackgroundTracker(inner, told.append)
        kill(server)
        last.status = "FINISHED"
        tracker.request()
        begun = time.monotonic()
        while not told and time.monotonic() - begun < 30:
            time.sleep(0.1)
        assert len(told) == 1
        server = start_server(storage, port)
        assert tracker.finish()
        assert len(told) == 1
        served = seen(uri, "tracked")
    finally:
        kill(server)
    sync(fill(make_records(storage, "undisturbed")))
    assert served == seen(uri_of(storage), "undisturbed")


def test_the_values_of_every_step_are_there_in_the_order_of_training(storage: Path) -> None:
    records = fill(make_records(storage))
    records.write()
    sync(records)
    steps = read_rows(records.run / "steps.parquet")
    trial = next(iter(records.records))
    weights = [(row["stage"], row["step"], row["value"]) for row in steps if row["name"] == "ema/weight"]
    assert weights[:4] == [(0, 0, 0.9), (0, 1, 0.5), (1, 0, 0.9), (1, 1, 0.5)]
    points = seen(uri_of(storage), records.spec.name)[trial][2]
    logged = sorted((step, value) for name, step, value in points if name == "ema/weight")
    assert logged[:4] == [(0, 0.9), (1, 0.5), (2, 0.9), (3, 0.5)]  # stage after stage
    assert not [value for name, _, value in points if name == "ema/raw" and value != 0.5]
