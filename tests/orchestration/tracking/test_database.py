"""The MLflow database of a storage, whatever happened to it. The real MLflow."""

from __future__ import annotations

import shutil
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from orchestration.tracking.database import database_of, prepare
from orchestration.tracking.mirror import unreachable
from orchestration.tracking.tracker import Tracker
from tests.orchestration.tracking.test_tracking import (
    fill,
    make_records,
    provenance,
    seen,
    storage,
    sync,
    template,
    uri_of,
)

__all__ = ["storage", "template"]  # fixtures


def places(path: Path) -> set[str]:
    with closing(sqlite3.connect(path)) as database:
        found = database.execute("SELECT artifact_location FROM experiments UNION SELECT artifact_uri FROM runs")
        return {place for (place,) in found if "mlartifacts" in place}


def test_a_new_one_appears_whole_and_once(tmp_path: Path) -> None:
    made: list[str] = []

    def make(uri: str) -> None:
        made.append(uri)
        path = database_of(uri)
        assert path
        with closing(sqlite3.connect(path)) as database, database:
            database.execute("CREATE TABLE alembic_version (version_num)")
            assert not (tmp_path / "mlflow.db").exists()  # while it is made it goes by another name
            database.execute("CREATE TABLE experiments (artifact_location)")
            database.execute("CREATE TABLE runs (artifact_uri)")
            database.execute("INSERT INTO alembic_version VALUES ('1')")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: prepare(tmp_path / "mlflow.db", make), range(8)))
    assert len(made) == 1
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["mlflow.db"]


def test_one_that_is_half_made_heals(storage: Path) -> None:
    with closing(sqlite3.connect(storage / "mlflow.db")) as database, database:
        database.execute("DELETE FROM alembic_version")
        database.execute("DROP TABLE metrics")
    sync(fill(make_records(storage)))
    assert len(seen(uri_of(storage), "tracked")) == 3
    assert len(list(storage.glob("mlflow.db.half-made-*"))) == 1


def test_a_copied_storage_writes_into_the_copy(storage: Path, tmp_path: Path) -> None:
    first = tmp_path / "first"
    first.mkdir()
    shutil.move(storage / "mlflow.db", first)
    records = fill(make_records(first))
    sync(records)
    assert {place.split("/mlartifacts/")[0] for place in places(first / "mlflow.db")} == {first.as_uri()}
    second = tmp_path / "second"
    shutil.copytree(first, second)
    shutil.rmtree(first)
    moved = fill(make_records(second), shift=0.1)
    sync(moved)
    assert {place.split("/mlartifacts/")[0] for place in places(second / "mlflow.db")} == {second.as_uri()}
    assert not first.exists()
    *_, files = seen(uri_of(second), "tracked")[next(iter(moved.records))]
    assert "accuracy_matrix.csv" in files


def test_the_database_of_somebody_else_is_left_as_it_is(storage: Path, tmp_path: Path) -> None:
    own, other = tmp_path / "own", tmp_path / "other"
    other.mkdir()
    shutil.move(storage / "mlflow.db", other)
    with closing(sqlite3.connect(other / "mlflow.db")) as database, database:
        database.execute("UPDATE experiments SET artifact_location = 'file:///elsewhere/mlartifacts/theirs'")
    Tracker(uri_of(other), fill(make_records(own)), provenance()).sync(True)
    theirs, ours = sorted(places(other / "mlflow.db") - {""}, key=lambda place: "elsewhere" not in place)[:2]
    assert theirs == "file:///elsewhere/mlartifacts/theirs"
    assert ours.startswith(own.as_uri())


def test_what_is_no_database_is_told_with_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_bytes(b"no database at all" * 100)
    with pytest.raises(sqlite3.Error) as raised:
        sync(fill(make_records(tmp_path)))
    said = unreachable(uri_of(tmp_path), raised.value)
    assert str(tmp_path / "mlflow.db") in said
    assert "orchestration.track" in said
    assert "reached" not in said
