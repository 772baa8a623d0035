"""Write every figure of a RUN for a paper: `python -m orchestration.figures RUN`.

RUN/figures/<name>.svg, .pdf, .png and .csv, the last with the numbers that the figure shows: the figures of the report,
and those of Fwd-Prompt's paper, of which the ones on the tasks' input embeddings need the model and the data, and those
after tuning also the states in the stage store; what they lack is said.
RUN/figures/captions.json has their captions. Exit 0: written; 1: the folder cannot be written; 2: there is no RUN, or
nothing in it to draw.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from mcit_core.yaml_document import SpecError
from orchestration.arguments import choose_stages
from orchestration.keep.files import StorageError, writing
from orchestration.plan.sweep_file import load_spec
from orchestration.plan.trials import known_trials
from orchestration.report.blocks import figures_of
from orchestration.report.charts import Figure, names_of
from orchestration.report.context import Context
from orchestration.report.figure_files import replace_listed, write_figure
from orchestration.report.paper import forward_maps, space_figures
from orchestration.report.sections import sections
from orchestration.results.reading import Results, check_run, read_results


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m orchestration.figures",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="a RUN folder, for example runs/threshold")
    parser.add_argument(
        "--spaces",
        action="store_true",
        help="also where the model's features are not kept, as of published ones: two passes over all training rows",
    )
    parser.add_argument(
        "--stages", default=None, metavar="PLACE", help="as given to the sweep (default: RUN/../stages)"
    )
    given = parser.parse_args(arguments)
    try:
        said = write_figures(given.run, given.spaces, given.stages)
    except StorageError as error:
        print(error, file=sys.stderr)
        return 1
    except (ValueError, FileNotFoundError) as error:
        print(error, file=sys.stderr)
        return 2
    print("\n".join(said))
    return 0


def write_figures(run: Path, spaces: bool = False, stages: str | None = None) -> list[str]:
    """What there is to say of each figure, line by line; `spaces`, `stages`: as the options. Raises ValueError where
    there is nothing to draw, FileNotFoundError where there is no RUN, and StorageError."""
    check_run(run)
    results = read_results(run)
    context = Context.of(results)
    figures = [figure for _, blocks in sections(context) for figure in figures_of(blocks)]
    figures += forward_maps(context)
    found, why = _inputs(run, results, spaces, stages) if figures else ([], [])
    figures += found
    if not figures:
        raise ValueError(f"{run}: no trial has finished, so there is nothing to draw")
    folder = run / "figures"
    with writing(folder):
        folder.mkdir(exist_ok=True)
        captions = {name: one.caption for name, one in zip(names_of(figures), figures, strict=True)}
        replace_listed(folder, captions)
        for name, one in zip(captions, figures, strict=True):
            write_figure(folder, name, one)
    said = [f"{folder / name}: {caption}" for name, caption in captions.items()]
    return [*said, *why]


def _inputs(run: Path, results: Results, anyway: bool, stages: str | None) -> tuple[list[Figure], list[str]]:
    """The figures on input embeddings, untouched and tuned, and what there is to say of those that are not made."""
    missing = (
        "not made: the spaces of the tasks' input embeddings",
        "not made: contours and ranks of input embeddings after tuning",
    )
    if results.imported:
        return [], [f"{one}; an import tells neither model nor data" for one in missing]
    from mcit_core.data.workbench import workbench_for
    from mcit_core.models import KeepsFeatures

    try:
        spec = load_spec(run / "sweep.yaml")
        storage = run.resolve().parent
        bench = workbench_for(known_trials(spec)[0].experiment, storage / "features")
        if not isinstance(bench.model, KeepsFeatures) and not anyway:
            return [], [
                f"{one}, which take passes over all training rows of this model: give --spaces" for one in missing
            ]
        figures = space_figures(bench, spec.tasks)
    except (SpecError, OSError, ValueError, ImportError) as error:
        return [], [f"{one}, for which the sweep's model and data are needed ({error})" for one in missing]
    from orchestration.report.tuned_inputs import tuned_figures
    from orchestration.report.tuned_states import find_states

    try:
        states = find_states(run, spec, bench, choose_stages(stages, storage))
        tuned, said = tuned_figures(bench, spec.tasks, states)
    except (SpecError, OSError, ValueError) as error:
        return figures, [f"{missing[1]} ({error})"]
    return [*figures, *tuned], said


if __name__ == "__main__":
    sys.exit(main())
