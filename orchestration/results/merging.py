"""Several RUNs as one, so that their settings are compared; refused where their rows do not belong together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import JsonValue

from mcit_core.choices import shown_choice
from mcit_core.config import Value
from mcit_core.methods import REFERENCES
from orchestration.keep.tables import Row, text_in
from orchestration.plan.spec import SweepSpec
from orchestration.plan.sweep_file import load_spec
from orchestration.plan.trials import Trial, applies, field_of, tuner_settings
from orchestration.results.reading import Results, plain_value, read_results
from orchestration.search.proposals import run_trials_of

#: columns that say where a search of one RUN has a trial
OF_A_SEARCH = ("setting", "batch", "state")


@dataclass(frozen=True)
class _Run:
    results: Results
    spec: SweepSpec
    trials: dict[str, Trial]

    @property
    def name(self) -> str:
        return str(self.results.folder)

    def told(self, key: str) -> JsonValue:
        """What its provenance says."""
        provenance = self.results.sweep.get("provenance")
        return provenance.get(key) if isinstance(provenance, dict) else None


def merge(runs: Sequence[Path], folder: Path) -> Results:
    """The RUNs as one whose report goes to `folder`. What differs between them becomes an axis. Raises ValueError where
    benchmark, model, weights, data, orders or what is evaluated differ, or a trial is in two of them with different
    code behind it, and SpecError where a sweep file cannot be read."""
    twice = [run for n, run in enumerate(runs) if any(run.resolve() == other.resolve() for other in runs[:n])]
    if twice:
        raise ValueError(f"{twice[0]} is given twice")
    found = [_read(run) for run in runs]
    first, *others = found
    for other in others:
        _check_alike(first, other)
    axes = _axes(found)
    rows: dict[str, Row] = {}
    stages = {}
    for run in found:
        for row in run.results.trials:
            name = text_in(row, "trial")
            keys = {one["key"] for one in (row, rows.get(name, row)) if one["key"] is not None}
            if len(keys) > 1:
                raise ValueError(f"{run.name}: trial {name} is in another RUN too, of other code, data or versions")
            if name not in rows or (row["status"] == "FINISHED" != rows[name]["status"]):
                rows[name] = _row(row, run, axes)
                stages[name] = run.results.stages.get(name, [])
    plain: dict[str, list[JsonValue] | None] = {name: [*map(plain_value, values)] for name, values in axes.items()}
    swept: dict[str, JsonValue] = {name: [*values] for name, values in axes.items()}
    if first.spec.order_swept:
        told = first.results.sweep.get("axes")
        plain["order"] = first.results.axes["order"]
        swept["order"] = told["order"] if isinstance(told, dict) else None
    names = [run.results.folder.name for run in found]
    names = [run.name if names.count(name) > 1 else name for name, run in zip(names, found, strict=True)]
    sweep: dict[str, JsonValue] = {
        **{name: value for name, value in first.results.sweep.items() if name not in ("search", "robust")},
        "name": " + ".join(names),
        "axes": swept,
        "seeds": [*sorted({seed for run in found for seed in run.spec.seeds})],
        "provenance": {name: run.results.sweep.get("provenance") for name, run in zip(names, found, strict=True)},
    }
    return Results(folder, sweep, plain, [*rows.values()], stages)


def _read(run: Path) -> _Run:
    results = read_results(run)
    if not results.trials:
        raise ValueError(f"{run} is no RUN with trials")
    if results.imported:
        raise ValueError(
            f"{run} was imported, which tells neither weights nor data; a mapping file imports several as one"
        )
    spec = load_spec(run / "sweep.yaml")
    trials = {trial.id: trial for trial in run_trials_of(spec, run)}
    unknown = [name for row in results.trials if (name := text_in(row, "trial")) not in trials]
    if unknown:
        raise ValueError(
            f"{run}: its trials ({unknown[0]}, ..) are named by another version of this project; give its sweep's "
            "command again, which names them anew"
        )
    return _Run(results, spec, trials)


def _check_alike(one: _Run, other: _Run) -> None:
    data = [run.told("data") for run in (one, other)]
    shared: list[JsonValue] = [
        {task: digest for task, digest in told.items() if all(isinstance(d, dict) and task in d for d in data)}
        if isinstance(told, dict)
        else told
        for told in data
    ]
    pairs: dict[str, tuple[object, object]] = {
        "benchmark": (shown_choice(one.spec.benchmark), shown_choice(other.spec.benchmark)),
        "model": (shown_choice(one.spec.model), shown_choice(other.spec.model)),
        "the model's weights": (one.told("weights"), other.told("weights")),
        "training data": (shared[0], shared[1]),
        "the orders of tasks": (one.spec.orders, other.spec.orders),
        "whether orders are drawn": (one.spec.orders_drawn, other.spec.orders_drawn),
        "what is evaluated": (_evaluated(one.spec), _evaluated(other.spec)),
    }
    for what, (here, there) in pairs.items():
        if here != there:
            raise ValueError(f"{one.name} and {other.name} differ in {what} ({here} against {there}): not one table")


def _evaluated(spec: SweepSpec) -> dict[str, Value]:
    return {path: value for path, value in spec.base.items() if path.startswith("evaluation.")}


def _axes(runs: Sequence[_Run]) -> dict[str, list[Value]]:
    """Every axis of one of them, and every setting in which they differ within a method, with its values."""
    swept = dict.fromkeys(name for run in runs for name in run.spec.axes)
    paths = dict.fromkeys(path for run in runs for path in run.spec.base)
    names = swept | dict.fromkeys(p for p in paths if len({repr(run.spec.base.get(p)) for run in runs}) > 1)
    if len({run.spec.method for run in runs if "method" not in run.spec.axes}) > 1:
        names = {"method": None, **names}
    found: dict[str, list[Value]] = {}
    for name in names:
        values: dict[str, dict[str, Value]] = {}
        for run in runs:
            for trial in run.trials.values():
                value = _value(trial, name)
                if value is not None:
                    values.setdefault(trial.method, {})[repr(value)] = value
        if name in swept or name == "method" or any(len(several) > 1 for several in values.values()):
            found[name] = list({key: one for several in values.values() for key, one in several.items()}.values())
    return found


def _value(trial: Trial, path: str) -> Value:
    """Of a field of a trial's experiment; None where a reference has nothing to do with it."""
    if path == "method":
        return trial.method
    if path in trial.settings:
        return trial.settings[path]
    if trial.method in REFERENCES and not applies(path, trial.experiment):
        return None
    return field_of(trial.experiment, path)


def _row(row: Row, run: _Run, axes: dict[str, list[Value]]) -> Row:
    trial = run.trials[text_in(row, "trial")]
    told: Row = {name: plain_value(_value(trial, name)) for name in axes}
    if row.get("tuner") is not None:
        told["tuner_settings"] = tuner_settings(trial.experiment, axes)
    kept = {name: value for name, value in row.items() if name not in OF_A_SEARCH}
    return {**kept, **told, "method": row["method"]}
