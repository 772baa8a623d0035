"""The MLflow database of a storage: there whole or not at all, and pointing to where the storage is now."""

from __future__ import annotations

import os
import sqlite3
import time
import uuid
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from filelock import FileLock

SCHEME = "sqlite:///"
PLACE = "/mlartifacts/"


def database_of(uri: str) -> Path | None:
    """The file behind a URI, None where it is no SQLite database."""
    return Path(uri.removeprefix(SCHEME)) if uri.startswith(SCHEME) else None


def prepare(path: Path, make: Callable[[str], object]) -> None:
    """Have `make` fill a database at the URI that it is given, where there is none at `path` yet; one that somebody was
    ended in the middle of making is moved aside first. Of one that is there, mend the places of artefacts where the
    storage was moved or copied. Raises sqlite3.Error for what is no database."""
    locks = path.parent / ".locks"
    locks.mkdir(parents=True, exist_ok=True)
    with FileLock(locks / f"{path.name}.lock"):
        if path.exists() and not _whole(path):
            os.replace(path, path.with_name(f"{path.name}.half-made-{time.strftime('%Y%m%d-%H%M%S')}"))
        if path.exists():
            _mend_places(path)
            return
        scratch = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
        make(f"{SCHEME}{scratch}")
        os.replace(scratch, path)


def _whole(path: Path) -> bool:
    """Whether its making has come to its end: the version of its tables is noted last. Anything with runs in it is."""
    with closing(sqlite3.connect(path)) as database:
        tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if "runs" in tables and database.execute("SELECT count(*) FROM runs").fetchone()[0]:
            return True
        return "alembic_version" in tables and bool(database.execute("SELECT * FROM alembic_version").fetchall())


def _mend_places(path: Path) -> None:
    here = path.parent.as_uri() + PLACE
    with closing(sqlite3.connect(path)) as database, database:
        for table, column in (("experiments", "artifact_location"), ("runs", "artifact_uri")):
            places = database.execute(f"SELECT DISTINCT {column} FROM {table} WHERE {column} LIKE 'file:%'").fetchall()
            there = {str(place).rpartition(PLACE)[0] + PLACE for (place,) in places if PLACE in str(place)}
            for place in there - {here}:
                database.execute(f"UPDATE {table} SET {column} = replace({column}, ?, ?)", (place, here))
