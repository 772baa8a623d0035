"""Write what a stage has trained as an adapter folder of peft: `python -m orchestration.export RUN TRIAL OUT`.

The adapter is of the model's own folder: `AutoPeftModel.from_pretrained(OUT)` loads both. Of a method that keeps
weights for groups of tasks (LLaCA) every group becomes a folder of its own, OUT/group0 and on. Nothing is trained, and
of the model no weights are read. Exit 0: written; 1: OUT or the stage store fails; 2: there is nothing to export, and
why.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from mcit_core.folders import check_folder
from mcit_core.registry import near
from mcit_core.stages.results import StageResult
from mcit_core.stages.state import StageState
from mcit_core.yaml_document import SpecError, load_yaml
from orchestration.arguments import choose_stages
from orchestration.keep.files import StorageError, writing
from orchestration.keep.records import Records, TrialRecord
from orchestration.keep.stage_store import StageStore
from orchestration.keep.upkeep import stages_of
from orchestration.plan.sweep_file import load_spec
from orchestration.plan.trials import make_trials

#: of what a stage measured of itself, what tells it from the same one trained again
TRAINED = ("seconds/train", "loss/first", "loss/last")
#: the file in an adapter's folder that says what it is
ABOUT = "mcit.json"


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m orchestration.export",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("run", type=Path, metavar="RUN", help="a RUN folder, for example runs/easy_vqa")
    made.add_argument(
        "trial", metavar="TRIAL", help="a trial as trials.parquet and the report name it, or its beginning"
    )
    made.add_argument("out", type=Path, metavar="OUT", help="the folder to write")
    made.add_argument(
        "--stage",
        default=None,
        metavar="K",
        help="the number of a stage, from 0 as in stages.parquet, or the task that it learned (default: the last)",
    )
    made.add_argument("--stages", default=None, metavar="PLACE", help="as given to the sweep (default: RUN/../stages)")
    return made


def main(arguments: list[str] | None = None) -> int:
    given = parser().parse_args(arguments)
    try:
        export(given.run, given.trial, given.stage, given.out, given.stages)
    except StorageError as error:
        print(error, file=sys.stderr)
        return 1
    except (SpecError, ValueError, OSError) as error:  # the last two of a model's folder or data that is not here
        print(error, file=sys.stderr)
        return 2
    return 0


def export(run: Path, name: str, stage: str | None, out: Path, stages: str | None) -> None:
    """Raises SpecError, ValueError or OSError, which say why there is nothing to export, and StorageError."""
    check_folder(out, "OUT")
    if out.exists() and any(out.iterdir()):
        raise SpecError(f"OUT {out}: is there and not empty; give another")
    record = _record(run, name)
    result = _stage(record, stage)
    storage = run.resolve().parent

    from mcit_core.data.workbench import workbench_for
    from mcit_core.peft_folder import check_exportable, write_adapter
    from mcit_core.training.stage import groups_at

    experiment = record.trial.experiment
    bench = workbench_for(experiment, storage / "features")
    model = check_exportable(experiment, bench.model)
    key, weights, state = _stored(StageStore(choose_stages(stages, storage)), record, result)
    if weights != model.digest:
        print(f"{model.folder}: not the files, settings or versions that the stage was trained with", file=sys.stderr)
    groups = groups_at(experiment, bench, result.stage)
    parts = groups.members if groups else [_learned(record, result)]
    with writing(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as made:
            scratch = Path(made) / out.name
            for number, tasks in enumerate(parts):
                folder = scratch / f"group{number}" if len(parts) > 1 else scratch
                own = state.group(number)
                assert own is not None
                write_adapter(folder, experiment, model, own)
                about = {
                    "trial": record.trial.id,
                    "stage": result.stage,
                    "key": key,
                    "tasks": tasks,
                    "experiment": experiment.model_dump(mode="json"),
                }
                (folder / ABOUT).write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
                place = out / folder.relative_to(scratch)
                print(f"{place}: {record.trial.id} after stage {result.stage}, of {', '.join(tasks)}")
            os.replace(scratch, out)  # an empty OUT gives way
    if len(parts) > 1:
        print("the method sends each row to one of these groups by its instruction; an adapter alone does not")


def _record(run: Path, name: str) -> TrialRecord:
    """What a RUN says of the one trial whose name starts with `name`."""
    file = run / "sweep.yaml"
    if file.exists() and "imported" in (load_yaml(file.read_text(encoding="utf-8")) or {}):
        raise SpecError(f"{run} was imported: it holds results, and no weights")
    spec = load_spec(file)
    records = Records(run, spec, make_trials(spec))
    records.read()
    names = [*records.records]
    found = [one for one in names if one == name] or [one for one in names if one.startswith(name)]
    if len(found) != 1:
        what = f"{len(found)} trials start with {name!r}" if found else f"there is no trial {name!r}"
        raise SpecError(f"{run}: {what}; it has {', '.join((found or names)[:8])}{near(name, names)}")
    return records.records[found[0]]


def _stage(record: TrialRecord, stage: str | None) -> StageResult:
    """The stage of a trial that was asked for."""
    trained = record.trained
    if not trained:
        raise SpecError(f"{record.trial.id} has no finished stage; its method is {record.trial.method}")
    if stage is None:
        return trained[-1]
    found = [result for result in trained if stage in (str(result.stage), result.task)]
    if not found:
        there = ", ".join(f"{result.stage} ({result.task})" for result in trained)
        raise SpecError(f"--stage {stage}: {record.trial.id} has the stages {there}")
    return found[0]


def _learned(record: TrialRecord, result: StageResult) -> list[str]:
    """The tasks that the weights of a stage have been trained on."""
    experiment = record.trial.experiment
    if experiment.protocol == "multitask":
        return [*experiment.order]
    return [*experiment.order[0 if experiment.protocol == "sequence" else result.stage : result.stage + 1]]


def _stored(store: StageStore, record: TrialRecord, result: StageResult) -> tuple[str, str, StageState]:
    """Key and model's digest of the very stage whose results the RUN has, and its state: of stages that were trained
    again, by other code or elsewhere, the one that measured the same. The key is not worked out anew, since code,
    versions and machine may be others than those that trained it."""
    entries = {key: entry for key in store.entries() if (entry := store.record(key)) is not None}
    chain = stages_of({key: entry["made_from"] for key, entry in entries.items()}, record.trial)
    measured = {name: result.metrics.get(name) for name in TRAINED}
    for key in chain[result.stage]:
        told = entries[key]["measured"]["metrics"]
        if {name: told.get(name) for name in TRAINED} == measured and (found := store.get_stage(key)) is not None:
            return key, str(entries[key]["made_from"].get("weights")), found[0]
    raise SpecError(
        f"stage {result.stage} of {record.trial.id} is not in {store.folder.root} ({len(entries)} stages); --stages "
        "names the store where it is another, and the sweep's own command trains again what was deleted"
    )


if __name__ == "__main__":
    sys.exit(main())
