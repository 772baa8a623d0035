"""Write what a stage has trained as an adapter folder of peft: `python -m orchestration.export RUN TRIAL OUT`.

The adapter is of the model's own folder: `AutoPeftModel.from_pretrained(OUT)` loads both. Of a method that keeps
weights for groups of tasks (LLaCA) every group becomes a folder of its own, OUT/group0 and on. Nothing is trained, and
of the model's weights only a digest is taken, where they are there. Exit 0: written; 1: OUT or the stage store fails;
2: there is nothing to export, and why.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from pydantic import JsonValue

from mcit_core.config import UNTRAINED
from mcit_core.folders import check_folder
from mcit_core.registry import near
from mcit_core.stages.results import StageResult
from mcit_core.yaml_document import SpecError
from orchestration.arguments import choose_stages
from orchestration.keep.files import StorageError
from orchestration.keep.kept_state import KeptStates
from orchestration.keep.records import Records
from orchestration.keep.stage_store import StageStore
from orchestration.keep.trial_record import TrialRecord
from orchestration.plan.sweep_file import load_spec
from orchestration.results.reading import read_sweep
from orchestration.search.proposals import run_trials_of

if TYPE_CHECKING:
    from mcit_core.models.hf import HfModel

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
    out = out.resolve()
    check_folder(out, "OUT")
    if out.exists() and any(out.iterdir()):
        raise SpecError(f"OUT {out}: is there and not empty; give another")
    record = _record(run, name)
    result = _stage(record, stage)

    import torch

    from mcit_core.models import load_model
    from mcit_core.peft_folder import check_exportable, write_adapter

    experiment = record.trial.experiment
    model = check_exportable(experiment, load_model(experiment.model, torch.device("cpu")))
    kept = KeptStates(StageStore(choose_stages(stages, run.resolve().parent))).of(record, result)
    state = kept.state
    for line in _doubts(model, kept.made_from):
        print(line, file=sys.stderr)
    grey = ", trained on grey pictures" if experiment.protocol == "blind" else ""
    said = []
    with _scratch(out) as scratch:
        for number in range(state.groups):
            part = Path(f"group{number}") if state.groups > 1 else Path()
            tasks = _learned(record, result, number if state.groups > 1 else None)
            own = state.group(number)
            if own is None:
                raise ValueError(f"stage {result.stage} of {record.trial.id} has no weights for group {number}")
            about = {
                "trial": record.trial.id,
                "stage": result.stage,
                "key": kept.key,
                "tasks": tasks,
                "experiment": experiment.model_dump(mode="json"),
            }
            (scratch / part).mkdir(exist_ok=True)
            write_adapter(scratch / part, experiment, model, own)
            (scratch / part / ABOUT).write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
            of = f", of {', '.join(tasks)}" if tasks else ""
            said.append(f"{out / part}: {record.trial.id} after stage {result.stage}{of}{grey}")
        shutil.copytree(scratch, out, dirs_exist_ok=True)
    print("\n".join(said))
    if state.groups > 1:
        print("the method sends each row to one of these groups by its instruction; an adapter alone does not")


@contextmanager
def _scratch(out: Path) -> Iterator[Path]:
    """A folder beside `out`. Raises StorageError for an OSError of what is done inside."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as made:
            scratch = Path(made) / "adapter"
            scratch.mkdir()
            yield scratch
    except (OSError, shutil.Error) as error:
        raise StorageError(f"OUT {out}: cannot be written ({error})") from error


def _doubts(model: HfModel, made_from: dict[str, JsonValue]) -> list[str]:
    """What may keep the adapter from computing as the stage did."""
    try:
        digest = model.digest
    except (FileNotFoundError, ValueError) as error:
        return [f"{error}: whether the weights are those that the stage was trained on cannot be told"]
    if made_from.get("weights") == digest:
        return []
    return [f"{model.folder}: not the files, settings or versions that the stage was trained with"]


def _record(run: Path, name: str) -> TrialRecord:
    """What a RUN says of the one trial whose name starts with `name`."""
    if "imported" in read_sweep(run):
        raise SpecError(f"{run} was imported: it holds results, and no weights")
    spec = load_spec(run / "sweep.yaml")
    records = Records(run, spec, run_trials_of(spec, run))
    records.read()
    names = [*records.records]
    found = [one for one in names if one == name] or [one for one in names if one.startswith(name)]
    if len(found) != 1:
        what = f"{len(found)} trials start with {name!r}" if found else f"there is no trial {name!r}"
        raise SpecError(f"{run}: {what}; it has {', '.join((found or names)[:8])}{near(name, names)}")
    return records.records[found[0]]


def _stage(record: TrialRecord, stage: str | None) -> StageResult:
    """The stage of a trial that was asked for, by its number, or else by its task."""
    trained, experiment = record.trained, record.trial.experiment
    if experiment.protocol in UNTRAINED:
        raise SpecError(f"{record.trial.id}: method {record.trial.method} trains nothing")
    if not trained:
        raise SpecError(f"{record.trial.id} has no finished stage: it is {record.status}")
    if stage is None:
        return trained[-1]
    found = [result for result in trained if stage == str(result.stage)]
    found += [result for result in trained if stage == result.task]
    if not found:
        there = ", ".join(f"{result.stage} ({result.task})" for result in trained)
        raise SpecError(f"--stage {stage}: {record.trial.id} has the stages {there}")
    return found[0]


def _learned(record: TrialRecord, result: StageResult, group: int | None) -> list[str]:
    """The tasks that the weights of a stage, or of one group of it, have been trained on; of a group none where the
    RUN is of a version that did not tell."""
    experiment = record.trial.experiment
    if experiment.protocol == "multitask":
        return [*experiment.order]
    first = 0 if experiment.protocol == "sequence" else result.stage
    seen = [*experiment.order[first : result.stage + 1]]
    return [task for task in seen if group is None or result.metrics.get(f"grouping/group/{task}") == group]


if __name__ == "__main__":
    sys.exit(main())
