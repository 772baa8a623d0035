"""What the sweep command refuses or survives before any trial runs: one message, no traceback, the right exit code."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from orchestration.arguments import choose_stages, choose_storage
from orchestration.keep.provenance import write_sweep
from orchestration.plan.sweep_file import resolved
from orchestration.report import write_report
from orchestration.sweep import begin_run, main, where_to_look
from orchestration.track import main as track
from tests.orchestration.tracking.test_tracking import fill, make_records, provenance

SWEEP = """\
name: refused
benchmark: {benchmark}
tasks: [attribute]
model: {model}
method: sequential
base: {{train.steps: 1}}
"""


def sweep_file(folder: Path, benchmark: str = "tiny", model: str = "mini") -> str:
    path = folder / "sweep.yaml"
    path.write_text(SWEEP.format(benchmark=benchmark, model=model))
    return str(path)


def closed_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@pytest.mark.parametrize("variable", [False, True])
@pytest.mark.parametrize(
    ("address", "fragment"),
    [
        ("http://127.0.0.1:8265", "ray job submit"),
        ("127.0.0.1", "expected HOST:PORT"),
        ("127.0.0.1:99999", "no Ray cluster answers"),
        ("127.0.0.1:{closed}", "no Ray cluster answers"),
        ("ray://127.0.0.1:{closed}", "no Ray cluster answers"),
    ],
)
def test_an_address_without_a_cluster(
    address: str,
    fragment: str,
    variable: bool,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    address = address.format(closed=closed_port())
    words = [sweep_file(tmp_path), "--storage", str(tmp_path / "runs")]
    if variable:
        monkeypatch.setenv("RAY_ADDRESS", address)
    else:
        words += ["--address", address]
    assert main(words) == 2
    message = capsys.readouterr().err
    assert message.startswith("RAY_ADDRESS=" if variable else "--address ")
    assert fragment in message
    assert address in message
    assert len(message.splitlines()) == 1
    assert not (tmp_path / "runs").exists()


def test_a_damaged_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([sweep_file(tmp_path, model="damaged"), "--storage", str(tmp_path / "runs")]) == 2
    message = capsys.readouterr().err
    assert "model damaged with benchmark tiny cannot be loaded" in message
    assert "is missing; rebuild it" in message
    assert len(message.splitlines()) == 1


def test_a_batch_that_is_larger_than_a_task(tmp_path: Path, features: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "features").symlink_to(features)
    words = [sweep_file(tmp_path, model="tiny"), "--storage", str(tmp_path / "runs"), "--set", "train.batch_size=65"]
    assert main(words) == 2
    message = capsys.readouterr().err
    assert message == "train.batch_size 65 is larger than attribute, which has 64 training rows; set 64 at most\n"


def test_fresh_keeps_the_old_run_and_the_stages(tmp_path: Path) -> None:
    (tmp_path / "stages").mkdir()
    run = tmp_path / "name"
    for text in ("first", "second", "third"):
        begin_run(run, fresh=True)
        assert not list(run.iterdir())
        (run / "trials.parquet").write_text(text)
    begin_run(run, fresh=False)
    assert (run / "trials.parquet").read_text() == "third"
    kept = sorted(path for path in tmp_path.iterdir() if path.name.startswith("name."))
    assert sorted((path / "trials.parquet").read_text() for path in kept) == ["first", "second"]
    assert (tmp_path / "stages").exists()


@pytest.mark.parametrize(
    ("place", "fragment"),
    [("nosuch://bucket/stages", "cannot be opened"), ("/dev/null/stages", "is a file; expected a folder")],
)
def test_a_place_for_stages_that_cannot_be_opened_is_refused(
    place: str, fragment: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([sweep_file(tmp_path), "--storage", str(tmp_path / "runs"), "--stages", place]) == 2
    said = capsys.readouterr().err
    assert f"--stages {place}" in said
    assert fragment in said
    assert not (tmp_path / "runs").exists()


def test_stages_are_in_the_storage_or_where_it_is_said(tmp_path: Path) -> None:
    assert choose_stages(None, tmp_path) == str(tmp_path / "stages")
    assert choose_stages(f"file://{tmp_path}/shared", tmp_path) == f"file://{tmp_path}/shared"
    assert choose_stages(str(tmp_path / "shared"), tmp_path) == str(tmp_path / "shared")


@pytest.mark.parametrize(
    ("option", "value", "fragment"),
    [
        *((option, "", "is empty") for option in ("--storage", "--stages")),
        *(
            ("--storage", f"{scheme}place", "only --stages can be a URI")
            for scheme in ("file:", "az://", "abfs:", "http://")
        ),
        *((option, text, "not expanded") for option in ("--storage", "--stages") for text in ("$HOME/x", "a?b", "50%")),
        ("--stages", "s3://key:secret@bucket/stages", "AWS_ACCESS_KEY_ID"),
        ("--storage", "https://me:secret@host/x", "only --stages can be a URI"),
    ],
)
@pytest.mark.parametrize("dry", [True, False])
def test_places_that_would_become_others(
    option: str,
    value: str,
    fragment: str,
    dry: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    before = {path.name for path in tmp_path.iterdir()} | {"sweep.yaml"}
    assert main([sweep_file(tmp_path), option, value, *(["--dry-run"] if dry else [])]) == 2
    said = capsys.readouterr().err
    assert fragment in said
    assert len(said.splitlines()) == 1
    assert "secret" not in said
    assert {path.name for path in tmp_path.iterdir()} == before


def test_a_tilde_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert choose_storage("~/runs") == tmp_path / "runs"


def test_a_password_of_the_tracker_is_written_and_said_nowhere(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    uri = "http://me:secret@127.0.0.1:9"
    records = fill(make_records(tmp_path))
    for record in records.records.values():
        record.stages = record.trained
    sweep = {**resolved(records.spec), "tracking": {"mlflow": uri}}
    records.write()
    write_sweep(records.run, sweep, provenance())
    write_report(records.run)
    assert track([str(records.run)]) == 2
    assert track([str(records.run), "--uri", uri]) == 1
    said = capsys.readouterr()
    assert "secret" not in said.out + said.err
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or b"secret" not in path.read_bytes(), path
    assert where_to_look(uri) == "http://***@127.0.0.1:9"
