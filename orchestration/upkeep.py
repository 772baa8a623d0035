"""Looking after a stage store: list, verify, explain and gc. Run as `python -m orchestration.store`."""

from __future__ import annotations

import argparse
import re
import sys
import time
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mcit_core.config import flatten
from mcit_core.digest import digest
from mcit_core.document import SpecError
from mcit_core.stages import stage_chain
from orchestration.files import StorageError
from orchestration.plan import Trial, make_trials
from orchestration.spec import load_spec
from orchestration.store import StageStore

UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
#: what the parts of a key other than fields mean, where two stages differ in them
MEANINGS = {
    "code": "the source of mcit_core (comments and layout aside)",
    "torch": "the version of torch",
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
        a, b = ours["made_from"].get("parent"), theirs["made_from"].get("parent")
        what = f"the stages before ({str(a)[:12]} and {str(b)[:12]})"
    return lines or ["they are one and the same stage"]


def _differences(ours: dict[str, Any], theirs: dict[str, Any]) -> list[str]:
    a, b = ({k: v for k, v in flatten(part).items() if k != "parent"} for part in (ours, theirs))
    found = []
    for name in sorted(a.keys() | b.keys()):
        if a.get(name) == b.get(name) and (name in a) == (name in b):
            continue
        values = " against ".join(_short(part[name]) if name in part else "inactive" for part in (a, b))
        found.append(f"{MEANINGS.get(name, name.removeprefix('fields.'))}: {values}")
    return found


def _short(value: Any) -> str:
    text = str(value)
    return text[:12] if re.fullmatch(r"[0-9a-f]{32,}", text) else text


def needed_by(records: dict[str, dict[str, Any]], trials: Iterable[Trial]) -> set[str]:
    """The stored stages of these trials, parents included, whatever data, code and versions they were made with (a
    sweep file does not tell those)."""
    alike: dict[str, list[str]] = {}
    for key, made_from in records.items():
        alike.setdefault(_planned(made_from), []).append(key)
    needed: set[str] = set()
    for trial in trials:
        parents: set[str | None] = {None}
        for stage in stage_chain(trial.experiment, {}, {}):
            mine = [key for key in alike.get(_planned(stage.made_from), []) if records[key].get("parent") in parents]
            needed.update(mine)
            if trial.experiment.protocol != "direct":
                parents = set(mine)
    return needed


def _planned(made_from: dict[str, Any]) -> str:
    return digest([made_from.get(name) for name in ("benchmark", "model", "task", "fields")])


def collect(store: StageStore, keep: Iterable[Trial], limit: int, dry_run: bool) -> tuple[list[tuple[str, int]], int]:
    """Delete stages, the longest unused first, until at most `limit` bytes are left; never one that `keep` needs or a
    lease covers, nor their parents. A parent counts as used when its children are. Returns what was deleted (key and
    bytes) and the bytes left. Raises StorageError."""
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
        kept.update(key for key in (lease.get("key"), lease.get("parent")) if key)
    for key in list(kept):
        kept.update(_ancestors(records, key))
    left, deleted = sum(sizes.values()), []
    for key in sorted(files, key=lambda key: (used[key], -depth[key])):
        if left <= limit:
            break
        if key in kept:
            continue
        if not dry_run:
            store.delete(key)
        left -= sizes[key]
        deleted.append((key, sizes[key]))
    return deleted, left


def _ancestors(records: dict[str, dict[str, Any]], key: str) -> Iterable[str]:
    parent = records.get(key, {}).get("parent")
    while parent is not None:
        yield parent
        parent = records.get(parent, {}).get("parent")


def sweep_up(store: StageStore, dry_run: bool) -> int:
    """Delete what no record names: damaged entries that were set aside, and files that killed workers left behind.
    Returns the bytes."""
    files = store.entries()
    freed = 0
    for entry in store.folder.files():
        parts = entry.name.split("/")
        scratch = parts[-1].startswith(".")
        orphan = len(parts) == 3 and parts[1].startswith(parts[0]) and parts[1] not in files
        if parts[0] == "damaged" or ((scratch or orphan) and time.time() - entry.changed > ABANDONED):
            freed += entry.size
            if not dry_run:
                store.folder.delete(entry.name)
    return freed


def show(store: StageStore) -> None:
    print(f"{'key':14}{'after':14}{'task':14}{'MB':>8}  {'last used':18}{'trained in':>10}")
    files = store.entries()
    for key, entries in sorted(files.items(), key=lambda item: max(entry.changed for entry in item[1])):
        record = store.record(key)
        if record is None:
            print(f"{key[:12]:14}cannot be read; `verify` sets it aside")
            continue
        made_from = record["made_from"]
        size, used = sum(entry.size for entry in entries), max(entry.changed for entry in entries)
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(used))
        seconds = record["measured"].get("metrics", {}).get("seconds/train")
        print(
            f"{key[:12]:14}{(made_from.get('parent') or '-')[:12]:14}{made_from.get('task', '-'):14}{size / 1e6:8.2f}  "
            f"{when:18}{'-' if seconds is None else f'{seconds:.0f} s':>10}"
        )
    print(f"{len(files)} stages, {sum(e.size for entries in files.values() for e in entries) / 1e6:.1f} MB")


def verify(store: StageStore) -> int:
    """Read every stage and evaluation. Damaged ones are set aside; returns how many."""
    damaged = 0
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        stages = list(store.entries())
        damaged += sum(store.get_stage(key, touch=False) is None for key in stages)
        names = [entry.name for entry in store.folder.files("evaluations") if entry.name.endswith(".json")]
        keys = [name.removeprefix("evaluations/").removesuffix(".json") for name in names]
        damaged += sum(store.get_evaluation(key) is None for key in keys)
    for warning in said:
        print(warning.message)
    print(f"{len(stages)} stages and {len(keys)} evaluations read, {damaged} damaged")
    return damaged


def full_key(store: StageStore, prefix: str) -> str:
    """The one key that starts with `prefix`. Raises KeyError."""
    found = [key for key in store.entries() if key.startswith(prefix)]
    if len(found) != 1:
        some = ": " + ", ".join(key[:16] for key in found[:5]) if found else "; `list` shows them"
        raise KeyError(f"{len(found)} stages in {store.folder.root} start with {prefix!r}{some}")
    return found[0]


def bytes_of(text: str) -> int:
    """ "5GB" -> 5000000000."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)B?", text.strip().upper())
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a size such as 5GB or 300MB")
    return int(float(match[1]) * UNITS[match[2]])


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--storage", default="runs", metavar="DIR", help="the sweeps' storage, a folder or a URI (default: runs)"
    )
    common.add_argument("--stages", metavar="PLACE", help="as given to the sweep (default: DIR/stages)")
    parser = argparse.ArgumentParser(prog="python -m orchestration.store", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", parents=[common], help="every stage, the longest unused first")
    commands.add_parser("verify", parents=[common], help="read everything, set damaged entries aside (exit code 1)")
    why = commands.add_parser("explain", parents=[common], help="say in words why two stages differ")
    why.add_argument("key_a", metavar="KEY_A", help="a key or its beginning")
    why.add_argument("key_b", metavar="KEY_B")
    gc = commands.add_parser("gc", parents=[common], help="delete stages, the longest unused first")
    gc.add_argument("--keep", action="append", default=[], type=Path, metavar="RUN", help="spare what this RUN needs")
    gc.add_argument(
        "--max-size",
        type=bytes_of,
        metavar="SIZE",
        help="stop at this size, for example 5GB (default: spare only RUNs)",
    )
    gc.add_argument("--dry-run", action="store_true", help="say what would be deleted; delete nothing")
    args = parser.parse_args(arguments)
    if args.command == "gc" and args.max_size is None and not args.keep:
        parser.error("gc: expected --max-size SIZE, --keep RUN or both; without either it would delete every stage")
    return args


def main(arguments: list[str] | None = None) -> int:
    """Exit codes: 0 fine, 1 something is damaged or could not be done, 2 wrong input."""
    args = parse_arguments(arguments)
    try:
        store = StageStore(args.stages or f"{args.storage.rstrip('/')}/stages")
        if not store.folder.exists():
            raise ValueError(
                f"{store.folder.root}: there is no such folder; --storage names the one with stages/ in it"
            )
        if args.command == "verify":
            return 1 if verify(store) else 0
        if args.command == "list":
            show(store)
        elif args.command == "explain":
            print("\n".join(explain(store, full_key(store, args.key_a), full_key(store, args.key_b))))
        else:
            trials = [trial for run in args.keep for trial in make_trials(load_spec(run / "sweep.yaml"))]
            deleted, left = collect(store, trials, args.max_size or 0, args.dry_run)
            freed = sweep_up(store, args.dry_run)
            for key, size in deleted:
                print(f"{key[:12]}  {size / 1e6:.2f} MB")
            said = "would be deleted" if args.dry_run else "deleted"
            print(
                f"{len(deleted)} stages and {freed / 1e6:.2f} MB of leftovers {said}; "
                f"{left / 1e6:.1f} MB of stages left"
            )
            if args.max_size is not None and left > args.max_size:
                print("the rest is needed by a --keep RUN or leased by a live sweep")
    except (KeyError, SpecError, ValueError) as error:
        print(error.args[0] if isinstance(error, KeyError) else error, file=sys.stderr)
        return 2
    except StorageError as error:
        print(error, file=sys.stderr)
        return 1
    return 0
