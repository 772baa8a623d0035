"""Whether a benchmark's folder is what it should be: every row and every picture looked at, before anything is trained.

    python -m mcit_core.benchmarks.check /data/UCIT
    python -m mcit_core.benchmarks.check /data/mine --kind llava_json --json

Exit code 0: nothing is wrong, though there may be notes; 1: something is (rows or pictures that cannot be read, twice
the same id or row, a test row that stands in training, a gold that can never be right, a prompt that gives its answer
away, rows that got lost); 2: the folder cannot be read at all.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from mcit_core.benchmarks.audit import SHOWN, Audit, Finding, Report
from mcit_core.benchmarks.files import FilesBenchmark
from mcit_core.registry import BENCHMARKS

KINDS = ("coin", "ucit", "mllm_dcl", "mllm_acl", "llava_json")
#: examples that are printed of what is wrong, and of a note
PRINTED, OF_A_NOTE = 5, 1
#: rows of a training step of a model of 7 billion parameters, and its seconds on one GPU of 80 GB (docs/models.md)
STEP_ROWS, STEP_SECONDS = 16, 1.0


def kind_of_folder(root: Path) -> str:
    """The public benchmark that a folder looks like: by what it has that no other has, else by most tasks."""
    if instructions_in(root):
        return "coin"
    if (root / "benchmark.yaml").exists():
        return "llava_json"
    found = {}
    for kind in ("ucit", "mllm_dcl", "mllm_acl"):
        try:
            found[kind] = len(opened(root, kind).tasks)
        except (OSError, ValueError):
            continue
    return max(found, key=lambda kind: found[kind]) if found and max(found.values()) > 1 else "llava_json"


def instructions_in(root: Path) -> list[str]:
    """CoIN's wordings that a folder has, the usual one first."""
    there = {path.name for part in ("", "CoIN") for path in (root / part).glob("Instructions_*")}
    return [name for name in ("Original", "Diverse", "10Type") if f"Instructions_{name}" in there]


def opened(root: Path, kind: str, **more: str) -> FilesBenchmark:
    """Raises as the benchmark does."""
    told: dict[str, object] = {"root": str(root), "on_bad_row": "skip", **more}
    if kind == "coin" and instructions_in(root):
        told.setdefault("instructions", instructions_in(root)[0])
    made = BENCHMARKS.load(kind)
    found: FilesBenchmark = made(made.Settings.model_validate(told))
    return found


def shown(root: Path, kind: str, report: Report) -> Iterator[str]:
    yield f"{root}: {kind}, {len(report.rows)} tasks"
    yield ""
    wide = max(map(len, report.rows))
    for task, splits in report.rows.items():
        yield f"  {task:<{wide}}  " + ", ".join(f"{split} {rows:,}" for split, rows in splits.items())
        for split, shapes in report.shapes[task].items():
            told = ", ".join(f"{kind} {100 * share:.0f} %" for kind, share in shapes.items())
            yield f"  {'':<{wide}}    {split} answers: {told}" if told else f"  {'':<{wide}}    {split}: no answers"
    for title, defects in (("Wrong", True), ("Notes", False)):
        found = [one for one in report.findings if one.defect == defects]
        yield ""
        yield f"{title}:" if found else f"{title}: nothing"
        for one in found:
            yield from _lines(one)
    yield ""
    rate = f", {report.pictures / report.seconds:,.0f} a second" if report.seconds > 0 and report.pictures else ""
    trained = sum(splits.get("train", 0) for splits in report.rows.values())
    hours = trained / STEP_ROWS * STEP_SECONDS / 3600
    yield f"{report.pictures:,} pictures read{rate}; {report.bytes / 1e9:.2f} GB in all"
    yield (
        f"an epoch of all tasks takes about {hours:.1f} h with a model of 7 billion parameters on one GPU of 80 GB "
        f"({STEP_SECONDS:g} s for {STEP_ROWS} rows)"
    )


def _lines(found: Finding) -> Iterator[str]:
    place = f"{found.task} {found.split}".strip()
    yield f"  {place}: {found.count:,} {found.text}" if found.count > 1 else f"  {place}: {found.text}"
    most = PRINTED if found.defect else OF_A_NOTE
    for where in found.where[:most]:
        yield f"      {where}"
    if len(found.where) > most:
        yield f"      and {found.count - most:,} more" + (" (--json names some)" if found.count > SHOWN else "")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m mcit_core.benchmarks.check", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("root", type=Path, metavar="DIR", help="the folder of the benchmark")
    parser.add_argument("--kind", choices=KINDS, help="its form (default: what it looks like)")
    parser.add_argument("--images", help="the folder that pictures' paths begin in (default: DIR, then a task's)")
    parser.add_argument("--instructions", choices=("Original", "Diverse", "10Type"), help="of CoIN: which wordings")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    given = parser.parse_args(arguments)
    try:
        if not given.root.is_dir():
            raise FileNotFoundError(f"there is no folder {given.root}")
        kind = given.kind or kind_of_folder(given.root)
        more = {name: getattr(given, name) for name in ("images", "instructions") if getattr(given, name) is not None}
        report = Audit(opened(given.root, kind, **more)).run()
    except (OSError, ValueError) as error:
        print(f"{given.root} cannot be read: {error}", file=sys.stderr)
        return 2
    if given.json:
        print(json.dumps({"root": str(given.root), "kind": kind, "defects": len(report.defects), **asdict(report)}))
    else:
        print("\n".join(shown(given.root, kind, report)))
    return 1 if report.defects else 0


if __name__ == "__main__":
    raise SystemExit(main())
