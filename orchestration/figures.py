"""Write every figure of a RUN for a paper: `python -m orchestration.figures RUN`.

RUN/figures/<name>.svg, .pdf, .png and .csv, the last with the numbers that the figure shows: the figures of the report,
and those of Fwd-Prompt's paper, of which the ones on the tasks' input embeddings need the model and the data.
RUN/figures/captions.json has their captions. Exit 0: written; 1: the folder cannot be written; 2: there is no RUN, or
nothing in it to draw.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from mcit_core.yaml_document import SpecError
from orchestration.keep.files import StorageError, writing
from orchestration.plan.sweep_file import load_spec
from orchestration.plan.trials import make_trials
from orchestration.report.blocks import figures_of
from orchestration.report.charts import Figure, names_of
from orchestration.report.context import Context
from orchestration.report.figure_files import replace_listed, write_figure
from orchestration.report.paper import LEFT_OUT, forward_maps, space_figures
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
        help="also where the model's features are not kept, as of published ones: a pass over all training rows",
    )
    given = parser.parse_args(arguments)
    try:
        said = write_figures(given.run, given.spaces)
    except StorageError as error:
        print(error, file=sys.stderr)
        return 1
    except (ValueError, FileNotFoundError) as error:
        print(error, file=sys.stderr)
        return 2
    print("\n".join(said))
    return 0


def write_figures(run: Path, spaces: bool = False) -> list[str]:
    """What there is to say of each figure, line by line; `spaces`: as the option. Raises ValueError where there is
    nothing to draw, FileNotFoundError where there is no RUN, and StorageError."""
    check_run(run)
    results = read_results(run)
    context = Context.of(results)
    figures = [figure for _, blocks in sections(context) for figure in figures_of(blocks)]
    figures += forward_maps(context)
    found, why = _spaces(run, results, spaces) if figures else ([], "")
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
    return [*said, *filter(None, [why]), LEFT_OUT]


def _spaces(run: Path, results: Results, anyway: bool) -> tuple[list[Figure], str]:
    """The figures on input embeddings, and why there are none."""
    missing = "not made: the spaces of the tasks' input embeddings"
    if results.imported:
        return [], f"{missing}; an import tells neither model nor data"
    from mcit_core.data.workbench import workbench_for
    from mcit_core.models import KeepsFeatures

    try:
        spec = load_spec(run / "sweep.yaml")
        bench = workbench_for(make_trials(spec)[0].experiment, run.resolve().parent / "features")
        if not isinstance(bench.model, KeepsFeatures) and not anyway:
            return [], f"{missing}, which take a pass over all training rows of this model: give --spaces"
        return space_figures(bench, spec.tasks), ""
    except (SpecError, OSError, ValueError, ImportError) as error:
        return [], f"{missing}, for which the sweep's model and data are needed ({error})"


if __name__ == "__main__":
    sys.exit(main())
