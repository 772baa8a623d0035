"""What a stage store has for a plan: the stages and evaluations that need not be made again, and what others took."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from pydantic import JsonValue

from mcit_core.choices import kind_of
from mcit_core.config import UNTRAINED, Experiment
from mcit_core.stages.digest import digest
from mcit_core.stages.keys import stage_chain
from mcit_core.stages.results import Evaluation
from orchestration.keep.files import Entry
from orchestration.keep.stage_records import PEAK, StageRecord, StageRecords, is_evaluation
from orchestration.plan.stage_tree import Look, StageTree
from orchestration.plan.timings import (
    Sample,
    Timings,
    busy,
    evaluation_likeness,
    finite,
    rows_name,
    steps_name,
    training_likeness,
)
from orchestration.plan.trials import Trial

#: records that are read at once, which saves time where each is a request
REQUESTS = 16
#: stages with the same tuner and sizes whose evaluations are read for their seconds, at most
READ = 20
#: what an evaluation was made from
MadeFrom = dict[str, JsonValue]


@dataclass
class Stored:
    """`stages`: key in the plan's tree -> what of the stage's evaluations is there; a stage that is missing here has to
    be trained. `untouched`: evaluations of the model without a tuner. `timings`: what all stages of the model took."""

    timings: Timings = field(default_factory=Timings)
    stages: dict[str, list[MadeFrom]] = field(default_factory=dict)
    untouched: list[MadeFrom] = field(default_factory=list)


def shows(made: MadeFrom, one: Experiment, look: Look) -> bool:
    """Whether a stored evaluation, of the right stage and code, is what an experiment wants to look at."""
    settings = one.evaluation.model_dump(exclude_defaults=True)
    wanted: dict[str, JsonValue] = {
        "rows": look.most,
        "untrained": look.untrained or None,
        "pictures": "grey" if one.protocol == "blind" else None,
        "benchmark": one.benchmark,
        "model": one.model,
        "task": look.task,
        "threads": one.train.threads,
        "precision": one.train.precision,
        "batch_size": settings.get("batch_size"),
        # or else the benchmark says how long an answer is
        "max_new_tokens": made.get("max_new_tokens") if "answer_tokens" in made else settings.get("max_new_tokens"),
    }
    return _split_of(made) == look.split and all(made.get(name) == value for name, value in wanted.items())


def _split_of(made: MadeFrom) -> str | None:
    data = made.get("data")
    return next(iter(data), None) if isinstance(data, dict) else None


def read_store(where: str, trials: list[Trial], tree: StageTree, device: str) -> Stored:
    """What is stored at `where` for trials that run on `device`, cpu or cuda. That a stage is there is told by its
    settings, code and versions, and by how this machine calculates; data and weights are taken to be as they were,
    since no model is loaded. Raises StorageError where the store cannot be reached."""
    store = StageRecords(where)
    if not store.folder.exists():
        return Stored()
    models: list[JsonValue] = []
    for trial in trials:
        models += [] if trial.experiment.model in models else [trial.experiment.model]
    benchmarks = {kind_of(trial.experiment.benchmark) for trial in trials}
    files = store.entries()
    records: dict[str, StageRecord] = {}
    with ThreadPoolExecutor(REQUESTS) as pool:
        for key, record in zip(files, pool.map(store.record, files), strict=True):
            if record is not None and _may_count(record["made_from"], models, benchmarks, device):
                records[key] = record
    loose = _evaluations(store, [entry for _, stage, entry in store.evaluations() if stage is None])
    found = Stored(untouched=_untouched(loose, trials, device))
    _note_rows(found.timings, loose)
    if not records:
        return found
    stages = _stages({key: record["made_from"] for key, record in records.items()}, trials, tree, device)
    _read_timings(found.timings, store, records, files, device, {*stages.values()})
    for key, its in stages.items():
        found.stages[key] = _made_from(_evaluations(store, files[its]))
    return found


def _untouched(loose: list[Evaluation], trials: list[Trial], device: str) -> list[MadeFrom]:
    """What is stored of the untouched models of trials, as this code and this machine evaluate them."""
    experiments = {_part(vars(trial.experiment), ("benchmark", "model")): trial.experiment for trial in trials}
    found = [made for made in _made_from(loose) if _part(made, ("benchmark", "model")) in experiments]
    if not found:
        return []
    from mcit_core.stages.fingerprint import untouched_code  # loads torch, as below

    common = {"device": device, **_here(device)}
    here = {name: {**common, **untouched_code(one)} for name, one in experiments.items()}
    return [
        made for made in found if all(made.get(k) == v for k, v in here[_part(made, ("benchmark", "model"))].items())
    ]


def _here(device: str) -> dict[str, JsonValue]:
    """How this machine calculates on a device, where it has one."""
    import torch

    from mcit_core.stages.numerics import numerics

    return {"numerics": {**numerics(torch.device(device))}} if device == "cpu" or torch.cuda.is_available() else {}


def _may_count(made_from: dict[str, JsonValue], models: list[JsonValue], benchmarks: set[str], device: str) -> bool:
    benchmark, fields = made_from.get("benchmark"), made_from.get("fields")
    return (
        made_from.get("model") in models
        and isinstance(benchmark, str | dict)
        and kind_of(benchmark) in benchmarks
        and made_from.get("device") == device
        and isinstance(fields, dict)
        and isinstance(fields.get("train"), dict)
        and "tuner" in fields
        and "task" in made_from
    )


def _stages(
    records: Mapping[str, dict[str, JsonValue]], trials: list[Trial], tree: StageTree, device: str
) -> dict[str, str]:
    """Key in the tree -> the stored stage that is it."""
    plain = ("benchmark", "model", "task", "fields", "pictures")
    settings = {_part(made_from, plain) for made_from in records.values()}
    if not any(_part(made_from, plain) in settings for made_from in tree.made_from.values()):
        return {}
    # loads what the stages run, torch among it, which a plan of nothing stored does without
    from mcit_core.stages.fingerprint import stage_code

    here = _here(device)
    names = (*plain, "code", "libraries", *here)
    alike: dict[str, list[str]] = {}
    for key, made_from in records.items():
        alike.setdefault(_part(made_from, names), []).append(key)
    code: dict[str, dict[str, JsonValue]] = {}

    def code_of(experiment: Experiment, protections: Iterable[str]) -> dict[str, JsonValue]:
        acting = sorted(protections)
        kinds = [kind_of(experiment.model), kind_of(experiment.benchmark), experiment.tuner]
        name = digest([*kinds, acting])
        if name not in code:
            code[name] = stage_code(experiment, acting)
        return code[name]

    found: dict[str, str] = {}
    for trial in (trial for trial in trials if trial.experiment.protocol not in UNTRAINED):
        found |= _chain(
            trial,
            tree.chains[trial.id],
            records,
            lambda made_from: alike.get(_part(made_from, names), []),
            here,
            code_of,
        )
    return found


def _chain(
    trial: Trial,
    keys: list[str],
    records: Mapping[str, dict[str, JsonValue]],
    alike: Callable[[dict[str, JsonValue]], list[str]],
    here: dict[str, JsonValue],
    code_of: Callable[[Experiment, Iterable[str]], dict[str, JsonValue]],
) -> dict[str, str]:
    """The stored stages of a trial, as far as its chain is there without a gap."""
    one, found = trial.experiment, {}
    parents: set[JsonValue] = {None}
    for key, stage in zip(keys, stage_chain(one, {}, {}, lambda names: code_of(one, names)), strict=True):
        its = [name for name in alike({**stage.made_from, **here}) if records[name].get("parent") in parents]
        if its:
            found[key] = its[0]
        if one.protocol == "sequence":
            parents = {*its}
    return found


def _part(made_from: Mapping[str, JsonValue], names: Iterable[str]) -> str:
    return digest([made_from.get(name) for name in names])


def _read_timings(
    timings: Timings,
    store: StageRecords,
    records: Mapping[str, StageRecord],
    files: Mapping[str, list[Entry]],
    device: str,
    wanted: set[str],
) -> None:
    read: Counter[str] = Counter()
    for key, record in records.items():
        made_from, metrics = record["made_from"], record["measured"]["metrics"]
        hardware = _hardware(made_from)
        like = training_likeness(made_from, device)
        seconds = busy(metrics.get("seconds/train"), metrics.get("seconds/train_cpu"), device)
        steps = len(record["measured"].get("traces", {}).get("loss", ()))
        if seconds is not None and steps:
            timings.add_training(like, Sample(steps, seconds, hardware))
            timings.steps[steps_name(made_from)] = steps
        timings.add_size(like, sum(entry.size for entry in files[key]), finite(metrics.get(PEAK)))
        sizes = evaluation_likeness(made_from, device, "", "")[1]
        read[sizes] += 1
        if read[sizes] > READ and key not in wanted:
            continue
        evaluations = _evaluations(store, files[key])
        for found in evaluations:
            spent = busy(found.seconds, found.cpu_seconds, device)
            for cell in found.accuracy:
                if spent is not None:
                    alike = evaluation_likeness(made_from, device, cell.task, cell.split)
                    timings.add_evaluation(alike, Sample(cell.n, spent, hardware))
        _note_rows(timings, evaluations)


def _note_rows(timings: Timings, evaluations: Iterable[Evaluation]) -> None:
    """The rows of a split where all of them were evaluated, whatever `evaluation.rows` was."""
    for evaluation in evaluations:
        made = evaluation.made_from
        if made is None:
            continue
        most = made.get("rows")
        for cell in evaluation.accuracy:
            if most is None or (isinstance(most, int) and cell.n < most):
                name = rows_name(made["benchmark"], cell.task, cell.split)
                timings.rows[name] = max(cell.n, timings.rows.get(name, 0))


def _hardware(made_from: Mapping[str, JsonValue]) -> str:
    """The GPU, or the CPU's instruction set."""
    machine = made_from.get("numerics")
    return str(machine.get("gpu") or machine.get("cpu", "")) if isinstance(machine, dict) else ""


def _evaluations(store: StageRecords, entries: Iterable[Entry]) -> list[Evaluation]:
    found = [store.evaluation(entry.name) for entry in entries if is_evaluation(entry.name)]
    return [one for one in found if one is not None and all(cell.n > 0 for cell in one.accuracy)]


def _made_from(evaluations: Iterable[Evaluation]) -> list[MadeFrom]:
    return [found.made_from for found in evaluations if found.made_from is not None]
