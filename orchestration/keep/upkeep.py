"""Looking after a stage store: why two stages differ, and what may be deleted."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import JsonValue

from mcit_core.config import flatten
from mcit_core.stages.digest import digest
from mcit_core.stages.keys import stage_chain
from orchestration.keep.stage_records import stage_of
from orchestration.keep.stage_store import StageStore
from orchestration.plan.trials import Trial

#: what a stage was made from, as its record has it
MadeFrom = dict[str, JsonValue]
#: what the parts of a key other than fields mean, where two stages differ in them
MEANINGS = {
    "device": "the kind of device",
    "weights": "the model's weights",
    "data": "the task's training data",
    "benchmark": "the benchmark",
    "model": "the model",
    "task": "the task",
}
#: seconds after which a file that no record names is taken for the rest of a killed worker's
ABANDONED = 24 * 3600


def explain(store: StageStore, first: str, second: str) -> list[str]:
    """In words, why two stages have different keys; walks up to the parents where those differ.
    Raises KeyError where a key is not in the store."""
    lines: list[str] = []
    a: str | None = first
    b: str | None = second
    what = "the stages"
    while a != b:
        if a is None or b is None:
            alone, key = ("first", b) if a is None else ("second", a)
            lines.append(f"the {alone} starts from the pre-trained model, the other from stage {str(key)[:12]}")
            break
        ours, theirs = store.record(a), store.record(b)
        missing = [key for key, record in ((a, ours), (b, theirs)) if record is None]
        if ours is None or theirs is None:
            if what == "the stages":
                raise KeyError(f"there is no readable stage {missing[0]}")
            lines.append(
                f"{what} differ, but {missing[0][:12]} is not in the store any more, so not even it can say why"
            )
            break
        lines += [f"{what} differ in {text}" for text in _differences(ours["made_from"], theirs["made_from"])]
        a, b = _parent(ours["made_from"]), _parent(theirs["made_from"])
        what = f"the stages before ({str(a)[:12]} and {str(b)[:12]})"
    return lines or ["they are one and the same stage"]


def _parent(made_from: MadeFrom) -> str | None:
    """The key of the stage before."""
    parent = made_from.get("parent")
    return parent if isinstance(parent, str) else None


def _differences(ours: MadeFrom, theirs: MadeFrom) -> list[str]:
    a, b = ({k: v for k, v in flatten(part).items() if k != "parent"} for part in (ours, theirs))
    found = []
    for name in sorted(a.keys() | b.keys()):
        if a.get(name) == b.get(name) and (name in a) == (name in b):
            continue
        values = " against ".join(_short(part[name]) if name in part else "not used" for part in (a, b))
        found.append(f"{_meaning(name)}: {values}")
    return found


def _meaning(name: str) -> str:
    """A part of a key in words: "code.mcit_core.training.step", "libraries.torch", "fields.train.lr"."""
    head, _, rest = name.partition(".")
    words = {
        "code": "the source of {}",
        "libraries": "the version of {}",
        "numerics": "how the machine calculates ({})",
        "fields": "{}",
    }
    return words[head].format(rest) if rest and head in words else MEANINGS.get(name, name)


def _short(value: object) -> str:
    text = str(value)
    return text[:12] if re.fullmatch(r"[0-9a-f]{32,}", text) else text


def needed_by(records: dict[str, MadeFrom], trials: Iterable[Trial]) -> set[str]:
    """The stored stages of these trials, parents included, whatever data, code and versions they were made with (a
    sweep file does not tell those)."""
    alike = _by_plan(records)
    return {key for trial in trials for keys in _chain(records, alike, trial) for key in keys}


@dataclass(frozen=True)
class Use:
    """What a stage is to a sweep's trials: methods, settings and seeds as text, several where trials share it."""

    sweep: str
    method: str
    settings: str
    seed: str


def uses(records: dict[str, MadeFrom], sweeps: Mapping[str, Iterable[Trial]]) -> dict[str, list[Use]]:
    """Stage -> what it is to each sweep, by name; as `needed_by` has them, whatever code and versions trained it."""
    alike = _by_plan(records)
    found: dict[str, list[Use]] = {}
    for name, trials in sweeps.items():
        mine: dict[str, list[Trial]] = {}
        for trial in trials:
            for key in dict.fromkeys(key for keys in _chain(records, alike, trial) for key in keys):
                mine.setdefault(key, []).append(trial)
        for key, several in mine.items():
            told = [
                (
                    trial.method,
                    ", ".join(f"{k} {v}" for k, v in trial.settings.items() if v is not None and k != "method"),
                )
                for trial in several
            ]
            methods, settings = ([*dict.fromkeys(column)] for column in zip(*told, strict=True))
            seeds = sorted({trial.experiment.seed for trial in several})
            found.setdefault(key, []).append(
                Use(name, _some(methods), _some([one for one in settings if one]), ", ".join(map(str, seeds)))
            )
    return found


def _some(texts: list[str]) -> str:
    return " | ".join(texts[:2]) + (f" | and {len(texts) - 2} more" if len(texts) > 2 else "")


def stages_of(records: dict[str, MadeFrom], trial: Trial) -> list[list[str]]:
    """For each stage of a trial the stored ones that may be its, as `needed_by` has them."""
    return _chain(records, _by_plan(records), trial)


def _by_plan(records: dict[str, MadeFrom]) -> dict[str, list[str]]:
    alike: dict[str, list[str]] = {}
    for key, made_from in records.items():
        alike.setdefault(_planned(made_from), []).append(key)
    return alike


def _chain(records: dict[str, MadeFrom], alike: dict[str, list[str]], trial: Trial) -> list[list[str]]:
    found: list[list[str]] = []
    parents: set[str | None] = {None}
    for stage in stage_chain(trial.experiment, {}, {}):
        found.append([key for key in alike.get(_planned(stage.made_from), []) if _parent(records[key]) in parents])
        if trial.experiment.protocol == "sequence":
            parents = {*found[-1]}
    return found


def _planned(made_from: MadeFrom) -> str:
    return digest([made_from.get(name) for name in ("benchmark", "model", "task", "fields")])


def collect(store: StageStore, keep: Iterable[Trial], limit: int, dry_run: bool) -> tuple[list[tuple[str, int]], int]:
    """Delete stages with their evaluations, the longest unused first, until at most `limit` bytes are left; never one
    that `keep` needs or a lease covers, nor their parents. A parent counts as used when its children are. Evaluations
    that lie by no stage go in their turn where nothing is kept, which may need them. Returns what was deleted (key
    and bytes) and the bytes left. Raises StorageError."""
    files = store.entries()
    sizes = {key: sum(entry.size for entry in entries) for key, entries in files.items()}
    records = {key: record["made_from"] for key in files if (record := store.record(key)) is not None}
    used = {key: max(entry.changed for entry in entries) for key, entries in files.items()}
    depth: dict[str, int] = {}
    for key in files:
        ancestors = list(_ancestors(records, key))
        depth[key] = len(ancestors)
        for ancestor in ancestors:
            used[ancestor] = max(used.get(ancestor, 0.0), used[key])
    kept = needed_by(records, keep)
    for lease in store.leases.held():
        kept.update(key for key in (lease.get("key"), lease.get("parent")) if isinstance(key, str))
    for key in list(kept):
        kept.update(_ancestors(records, key))
    loose = [] if kept else [entry for _, stage, entry in store.evaluations() if stage is None]
    turns = [(used[key], -depth[key], key) for key in files.keys() - kept]
    turns += [(entry.changed, 0, entry.name) for entry in loose]
    sizes |= {entry.name: entry.size for entry in loose}
    left = sum(sizes.values())
    deleted: list[tuple[str, int]] = []
    for _, _, key in sorted(turns):
        if left <= limit:
            break
        if not dry_run:
            (store.delete if key in files else store.folder.delete)(key)
        left -= sizes[key]
        if key in files:
            deleted.append((key, sizes[key]))
    return deleted, left


def _ancestors(records: dict[str, MadeFrom], key: str) -> Iterable[str]:
    parent = _parent(records.get(key, {}))
    while parent is not None:
        yield parent
        parent = _parent(records.get(parent, {}))


def sweep_up(store: StageStore, dry_run: bool) -> int:
    """Delete what no record names: damaged entries that were set aside, and files that killed workers left behind.
    Returns the bytes."""
    files = store.entries()
    held = {str(lease.get("key")) for lease in store.leases.held()}
    freed = 0
    for entry in store.folder.files():
        parts = entry.name.split("/")
        scratch = any(part.startswith(".") for part in parts)
        lease = parts[0] == "leases" and Path(parts[-1]).stem not in held
        stage = stage_of(entry.name)
        orphan = stage is not None and stage not in files
        if parts[0] == "damaged" or ((scratch or orphan or lease) and time.time() - entry.changed > ABANDONED):
            freed += entry.size
            if not dry_run:
                store.folder.delete(entry.name)
    return freed
