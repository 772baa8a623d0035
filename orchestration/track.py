"""Bring MLflow up to date from a RUN's Parquet files: `python -m orchestration.track runs/threshold`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from mcit_core.yaml_document import SpecError, load_yaml
from orchestration.keep.files import StorageError, without_userinfo
from orchestration.keep.records import Records
from orchestration.keep.run_lock import run_lock
from orchestration.plan.sweep_file import load_spec
from orchestration.search.proposals import run_trials_of
from orchestration.tracking.mirror import unreachable
from orchestration.tracking.tracker import Tracker, tracking_uri


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m orchestration.track", description=__doc__)
    parser.add_argument("run", type=Path, help="a RUN folder, for example runs/threshold")
    parser.add_argument("--uri", default=None, help="a tracking URI (default: the sweep's own)")
    args = parser.parse_args(arguments)
    try:
        with run_lock(args.run):  # a sweep at work on it tells MLflow itself, and its trials are not dead
            return _track(args.run, args.uri)
    except (SpecError, StorageError) as error:
        print(error, file=sys.stderr)
        return 2


def _track(run: Path, given: str | None) -> int:
    try:
        spec = load_spec(run / "sweep.yaml")
        records = Records(run, spec, run_trials_of(spec, run))
        problems = records.read()
    except (SpecError, FileNotFoundError) as error:
        print(error, file=sys.stderr)
        return 2
    if problems:
        print(f"{'; '.join(problems)}: written anew from the journal", file=sys.stderr)
        records.write()
    provenance = load_yaml((run / "sweep.yaml").read_text(encoding="utf-8")).get("provenance", {})
    uri = given or tracking_uri(spec, run.parent)
    if "***@" in uri:
        print(f"{run}/sweep.yaml has MLflow's address without its password; give it by --uri", file=sys.stderr)
        return 2
    try:
        Tracker(uri, records, provenance).sync(final=True)
    except Exception as error:  # MLflow and what it stands on have a class for every way in which this fails
        print(unreachable(uri, error), file=sys.stderr)
        return 1
    print(f"MLflow at {without_userinfo(uri)} has everything of {run}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
