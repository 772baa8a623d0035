"""The command that looks after a stage store: `python -m orchestration.store list | verify | explain | gc`."""

from __future__ import annotations

import argparse
import re
import sys
import time
import warnings
from pathlib import Path

from mcit_core.yaml_document import SpecError
from orchestration.keep.files import StorageError
from orchestration.keep.stage_store import StageStore
from orchestration.keep.upkeep import Use, collect, explain, sweep_up, uses
from orchestration.plan.sweep_file import load_spec
from orchestration.plan.trials import Trial
from orchestration.results.reading import read_sweep
from orchestration.search.proposals import run_trials_of

UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


def show(store: StageStore, storage: str) -> None:
    """Every stage, and what it is to the RUNs that lie in `storage`."""
    print(
        f"{'key':14}{'after':14}{'task':14}{'MB':>8}  {'last used':18}{'trained in':>10}  "
        f"{'sweep':16}{'method':26}{'seed':6}setting"
    )
    files = store.entries()
    records = {key: record for key in files if (record := store.record(key)) is not None}
    sweeps, unread = _sweeps(storage)
    found = uses({key: record["made_from"] for key, record in records.items()}, sweeps)
    for key, entries in sorted(files.items(), key=lambda item: max(entry.changed for entry in item[1])):
        record = records.get(key)
        if record is None:
            print(f"{key[:12]:14}cannot be read; `verify` sets it aside")
            continue
        made_from = record["made_from"]
        parent = str(made_from.get("parent") or "-")
        size, used = sum(entry.size for entry in entries), max(entry.changed for entry in entries)
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(used))
        seconds = record["measured"].get("metrics", {}).get("seconds/train")
        line = (
            f"{key[:12]:14}{parent[:12]:14}{made_from.get('task', '-'):14}{size / 1e6:8.2f}  "
            f"{when:18}{'-' if seconds is None else f'{seconds:.0f} s':>10}  "
        )
        fields = made_from.get("fields")
        tuner, seed = (fields.get("tuner", "-"), fields.get("seed", "-")) if isinstance(fields, dict) else ("-", "-")
        for use in found.get(key) or [Use("-", f"(tuner {tuner})", "", str(seed))]:
            print(f"{line}{use.sweep:16}{use.method:26}{use.seed:6}{use.settings}".rstrip())
            line = " " * len(line)
    print(f"{len(files)} stages, {sum(e.size for entries in files.values() for e in entries) / 1e6:.1f} MB")
    if unread:
        print(f"not read: {', '.join(unread)}; what stages are to them is not told")


def _sweeps(storage: str) -> tuple[dict[str, list[Trial]], list[str]]:
    """The trials of every RUN in a storage folder by the RUN's name, and the RUNs whose sweeps cannot be read here."""
    found: dict[str, list[Trial]] = {}
    unread = []
    for file in sorted(Path(storage).glob("*/sweep.yaml")) if "://" not in storage else ():
        try:
            if "imported" not in read_sweep(file.parent):
                found[file.parent.name] = run_trials_of(load_spec(file), file.parent)
        except (SpecError, ValueError, OSError):
            unread.append(file.parent.name)
    return found, unread


def verify(store: StageStore) -> int:
    """Read every stage and evaluation. Damaged ones are set aside; returns how many."""
    damaged = 0
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        stages = list(store.entries())
        damaged += sum(store.get_stage(key, touch=False) is None for key in stages)
        evaluations = store.evaluations()
        damaged += sum(store.get_evaluation(key, stage) is None for key, stage, _ in evaluations)
    for warning in said:
        print(warning.message)
    print(f"{len(stages)} stages and {len(evaluations)} evaluations read, {damaged} damaged")
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
            show(store, args.storage)
        elif args.command == "explain":
            print("\n".join(explain(store, full_key(store, args.key_a), full_key(store, args.key_b))))
        else:
            trials = [trial for run in args.keep for trial in run_trials_of(load_spec(run / "sweep.yaml"), run)]
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


if __name__ == "__main__":
    sys.exit(main())
