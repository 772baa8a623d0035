"""What a RUN folder says of its trials: its Parquet files, and for what ended since they were written its journal."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import pyarrow as pa
from pydantic import JsonValue, TypeAdapter

from mcit_core.stages.results import StageResult
from orchestration.keep.journal import read_journal
from orchestration.keep.tables import SET_ASIDE, Row, marks, read_rows, stage_results, text_in

JOURNAL = "journal"


@dataclass
class Times:
    """When a trial ran, as the driver saw it, in seconds since 1970: when it was first given to a worker, when each of
    its stages was done (of one that came from the store, when it was taken from there), and when it ended."""

    begun: float | None = None
    stages: list[float] = field(default_factory=list)
    ended: float | None = None


@dataclass(frozen=True)
class StoredTrial:
    """What a RUN says of a trial. `key`: what its numbers follow from, None where an earlier version did not say;
    `row`: its row of trials.parquet, or the columns of it that say which trial it is; `times`: in the journal alone."""

    trial: str
    status: str
    error: str | None
    stages: list[StageResult]
    key: str | None = None
    row: Row = field(default_factory=dict)
    times: Times = field(default_factory=Times)

    @property
    def finished(self) -> bool:
        """Whether it has finished, whatever became of it since."""
        return self.status in ("FINISHED", *SET_ASIDE)

    def to_json(self) -> dict[str, JsonValue]:
        """As a line of the journal."""
        return asdict(self)


_STORED = TypeAdapter(StoredTrial)


def read_run(run: Path) -> tuple[dict[str, StoredTrial], list[str]]:
    """trial -> what the RUN says of it, and what is wrong with its Parquet files, in words; the journal then stands in
    for them."""
    problems: list[str] = []
    found: dict[str, StoredTrial] = {}
    try:
        found = _read_tables(run)
    except FileNotFoundError as error:
        problems.append(f"{error.filename or run} is missing")
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError) as error:
        problems.append(f"a Parquet file of {run} is damaged ({' '.join(str(error).split())[:200]})")
    for line in read_journal(run / JOURNAL):
        entry = _STORED.validate_python(line)
        written = found.get(entry.trial)
        row = written.row if written is not None and written.key == entry.key else {}
        found[entry.trial] = replace(entry, row={**row, **entry.row})
    return found, problems


def _read_tables(run: Path) -> dict[str, StoredTrial]:
    """trial -> what the Parquet files say of it."""
    paths = [run / f"{name}.parquet" for name in ("trials", "accuracy", "stages", "steps")]
    if not paths[-1].exists():  # a RUN of an earlier version has none
        del paths[-1]
    trials, *parts = map(read_rows, paths)
    found = stage_results(*parts)
    if not all(stage.metrics and stage.accuracy for stages in found.values() for stage in stages):
        raise ValueError("a stage is not in all of them")
    # a crash may have come between the renaming of two
    if len(marks(paths)) > 1:
        raise ValueError("they were not written together")
    entries = {}
    for row in trials:
        name, key = text_in(row, "trial"), row.get("key")
        entries[name] = StoredTrial(
            name,
            text_in(row, "status"),
            text_in(row, "error") or None,
            found.pop(name, []),
            str(key) if key else None,
            row,
        )
    if found:
        raise ValueError(f"trials.parquet lacks {next(iter(found))}")
    return entries
