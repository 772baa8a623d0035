"""How far a sweep of trials of two processes is from the same with one; `python -m tests.support.processes` prints the
table of docs/gpu.md."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
import yaml

from mcit_core.stages.digest import digest
from orchestration.keep.stage_store import StageStore

METHODS = ["fwd_prompt", "llaca", "pegp_lora", "er"]
#: the embedded model; a batch that does not divide evenly by two
SWEEP: dict[str, object] = {
    "benchmark": {"kind": "mini", "train_rows": 300, "validation_rows": 20, "test_rows": 100},
    "model": "mini",
    "tasks": ["attribute", "ground", "bars"],
    "method": "er",
    "axes": {"method": METHODS},
    "base": {"train.steps": 20, "train.batch_size": 15},
}
#: rates at which training does not enlarge what rounding leaves
LOW: dict[str, object] = {"train.lr": 1e-4}
TWO: dict[str, object] = {"processes": 2}


@dataclass(frozen=True)
class Apart:
    """The largest differences of a method."""

    accuracy: float  # of a cell, in [0, 1]
    loss: float  # of a step
    tensors: float  # of an entry of what a stage leaves, where its shape is the same


def run(folder: Path, name: str, base: Mapping[str, object] = {}, resources: Mapping[str, object] = {}) -> Path:
    """The RUN of the sweep with some settings more, trained by the sweep's own command."""
    text = {**SWEEP, "name": name, "base": {**SWEEP["base"], **base}, "resources": {"workers": 1, **resources}}  # type: ignore[dict-item]
    file = folder / f"{name}.yaml"
    file.write_text(yaml.safe_dump(text))
    command = [sys.executable, "-m", "orchestration.sweep", str(file), "--storage", str(folder / "runs")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=1200)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "runs" / name


def table(run_dir: Path, name: str, places: Iterable[str], value: str) -> dict[str, dict[tuple[object, ...], float]]:
    """Of each method what a Parquet file of the RUN holds, by place."""
    methods = {row["trial"]: row["method"] for row in pq.read_table(run_dir / "trials.parquet").to_pylist()}
    found: dict[str, dict[tuple[object, ...], float]] = {}
    for row in pq.read_table(run_dir / f"{name}.parquet").to_pylist():
        found.setdefault(methods[row["trial"]], {})[tuple(row[place] for place in places)] = row[value]
    return found


def states(store: StageStore, processes: int, accumulate: int = 1) -> dict[str, str]:
    """The keys of the stages that were trained so, by what else they were made from."""
    records = {key: record for key in store.entries() if (record := store.record(key))}

    def name(key: str) -> str:
        made = dict(records[key]["made_from"])
        fields = dict(made["fields"])  # type: ignore[call-overload]
        fields["train"] = {n: v for n, v in fields["train"].items() if n not in ("processes", "accumulate")}
        parent = made["parent"]
        return digest({**made, "fields": fields, "parent": name(str(parent)) if parent else None})

    found = {}
    for key, record in records.items():
        train = record["made_from"]["fields"]["train"]  # type: ignore[call-overload, index]
        if (train.get("processes", 1), train["accumulate"]) == (processes, accumulate):
            found[name(key)] = key
    return found


def largest(one: Mapping[tuple[object, ...], float], other: Mapping[tuple[object, ...], float]) -> float:
    assert one.keys() == other.keys()
    return max(abs(one[place] - other[place]) for place in one)


def apart(one: Path, other: Path, store: StageStore, ways: tuple[dict[str, str], dict[str, str]]) -> dict[str, Apart]:
    """Of each method, between two RUNs whose stages `store` holds under the keys of `states`."""
    cells = [table(each, "accuracy", ("stage", "task", "split"), "accuracy") for each in (one, other)]
    traces = [table(each, "steps", ("stage", "step", "name"), "value") for each in (one, other)]
    losses = [{m: {p: v for p, v in rows.items() if p[2] == "loss"} for m, rows in each.items()} for each in traces]
    tensors: dict[str, float] = {}
    methods = {"prompt_pool": "fwd_prompt"}
    for name, key in ways[0].items():
        fields = store.record(key)["made_from"]["fields"]  # type: ignore[index]
        method = methods.get(fields["tuner"]) or {"averaging": "llaca", "projection": "pegp_lora"}.get(  # type: ignore[call-overload, index]
            next((section for section in ("averaging", "projection") if section in fields), ""),  # type: ignore[operator]
            "er",
        )
        first, second = (store.peek(way[name]).tensors for way in ways)
        assert first.keys() == second.keys()
        for tensor in first:
            if first[tensor].shape == second[tensor].shape and not tensor.startswith(("usage", "basis")):
                far = (first[tensor].double() - second[tensor].double()).abs().max().item()
                tensors[method] = max(tensors.get(method, 0.0), far)
    return {
        method: Apart(
            largest(cells[0][method], cells[1][method]), largest(losses[0][method], losses[1][method]), tensors[method]
        )
        for method in METHODS
    }


def main() -> None:
    print("| rates | method | two processes: accuracy | loss | tensors | in two parts: accuracy | loss | tensors |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as name:
        for rates, base in (("their own", {}), ("0.0001", LOW)):
            folder = Path(name) / rates
            (folder / "runs").mkdir(parents=True)
            (Path(name) / "features").mkdir(exist_ok=True)
            (folder / "runs" / "features").symlink_to(Path(name) / "features")
            one, two = run(folder, "one", base), run(folder, "two", base, TWO)
            parts = run(folder, "parts", {**base, "train.accumulate": 2})
            store = StageStore(folder / "runs" / "stages")
            alone = states(store, 1)
            found = [
                apart(one, two, store, (alone, states(store, 2))),
                apart(one, parts, store, (alone, states(store, 1, 2))),
            ]
            for method in METHODS:
                numbers = [
                    f"{100 * f[method].accuracy:.1f} | {f[method].loss:.1e} | {f[method].tensors:.1e}" for f in found
                ]
                print(f"| {rates} | `{method}` | {' | '.join(numbers)} |", flush=True)


if __name__ == "__main__":
    main()
