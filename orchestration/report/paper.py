"""Fwd-Prompt's figures on any benchmark, each with a sentence on whether what the paper observed shows here.

Source: Zheng et al., arXiv 2401.09181: what earlier tasks do to those not yet learned, and the spaces of the tasks'
input embeddings. What lies behind the captions of its figures is a reconstruction.
"""

from __future__ import annotations

import html
import math
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from orchestration.report.context import Context
from orchestration.report.drawing import Drawn, draw_grid, new_figure
from orchestration.report.matrices import matrices_of
from orchestration.results.estimates import Estimate, estimate
from orchestration.results.matrices import AccuracyMatrix, mean_matrix
from orchestration.results.verdicts import plural

if TYPE_CHECKING:
    import torch

    from mcit_core.data.workbench import Workbench

#: settings whose matrices are shown
MOST_MAPS = 6
ENERGIES = (0.5, 0.9, 0.99)
#: what the paper shows besides, and why it is not made here
LEFT_OUT = (
    "not made: contours and ranks of input embeddings after tuning. The tuners of this project leave the embeddings of "
    "pictures and words as they are; what a stage adds are its prompts, which its state in the stage store has"
)


def forward_maps(context: Context) -> list[Drawn]:
    """R[t, j] - zero_shot[j] of some settings, in points: what learning the first t tasks gives to task j."""
    found = []
    for setting in context.pick(MOST_MAPS):
        order = next(iter(context.results.orders), None)
        matrices = matrices_of(context, context.rows(setting, order))
        matrix = mean_matrix(matrices)
        gains = _gains(matrix)
        if gains is None:
            continue
        label = context.label(setting)
        caption = f"{label}: test accuracy after a stage (row) less that of the untouched model, in points."
        if len(context.results.orders) > 1:
            caption += f" In the first of {len(context.results.orders)} orders."
        caption += _harm(estimate(_not_yet_learned(one) for one in matrices), _floor(matrix))
        figure = _map(gains, matrix.tasks, matrix.tasks, 100.0)
        found.append(Drawn(figure, html.escape(caption), f"forward transfer {label}"))
    return found


def _not_yet_learned(matrix: AccuracyMatrix) -> float | None:
    """The mean of R[t, j] - zero_shot[j], in points, over the tasks j that come after stage t."""
    gains = _gains(matrix)
    if gains is None:
        return None
    later = gains[np.triu_indices(len(gains), k=1)]
    later = later[np.isfinite(later)]
    return float(later.mean()) if later.size else None


def _floor(matrix: AccuracyMatrix) -> bool:
    """Whether the untouched model gets nothing right of tasks not yet learned, so that no training can harm them."""
    return not any(matrix.untouched[1:])


def _harm(mean: Estimate, floor: bool = False) -> str:
    """Whether tasks not yet learned suffer; told only where the interval over seeds leaves zero out."""
    if mean.mean is None:
        return ""
    said = f" On the tasks not yet learned that were evaluated it is {mean.mean:+.1f}".replace("-", "−")
    if floor:
        return f"{said}: the untouched model gets none of them right, so no harm could show."
    if mean.interval is None:
        return f"{said} (no interval from {plural(mean.n, 'seed')})."
    low, high = mean.interval
    paper = "the harm to them that the paper observed"
    told = "shows" if high < 0 else "does not show" if low > 0 else "cannot be told"
    return f"{said} ± {mean.half_width or 0.0:.1f} (95 %, {mean.n} seeds, this setting by itself): {paper} {told}."


def _gains(matrix: AccuracyMatrix) -> np.ndarray | None:
    """[T, T] in points; None where the untouched model is not known."""
    if not matrix.tasks or all(value is None for value in matrix.untouched):
        return None
    cells, before = (np.array(part, float) for part in (matrix.values, matrix.untouched))
    return 100 * (cells - before)


def _map(values: np.ndarray, rows: list[str], columns: list[str], most: float, form: str = "{:+.0f}") -> Figure:
    figure, (panel,) = new_figure(1.3 + 0.36 * len(rows), width=2.2 + 0.6 * len(columns))
    draw_grid(panel, values, rows, columns, most, form=form, signed=most > 1)
    return figure


def space_figures(bench: Workbench, tasks: tuple[str, ...]) -> list[Drawn]:
    """The spaces of the tasks' input embeddings, as the frozen model feeds them to its language model, by direction:
    their ranks, what of them lies inside the pre-trained space, and how far they overlap."""
    from mcit_core import subspace

    statistics = {task: bench.statistics(task, "unit").gram for task in ("pretraining", *tasks)}
    spectra = {task: subspace.spectrum(gram)[0] for task, gram in statistics.items()}
    names = list(statistics)
    ranks = [
        [*(float(subspace.energy_rank(values, energy)) for energy in ENERGIES), subspace.effective_rank(values)]
        for values in spectra.values()
    ]
    figure, (panel,) = new_figure(1.2 + 0.42 * len(names))
    labels = [*(f"{100 * energy:.0f} % of the energy" for energy in ENERGIES), "effective rank"]
    for i, label in enumerate(labels):
        places = [n + 0.2 * (i - 1.5) for n in range(len(names))]
        panel.barh(places, [row[i] for row in ranks], height=0.18, label=label)
    panel.set_yticks(range(len(names)), names)
    panel.invert_yaxis()
    panel.set_xlabel(f"directions, of {len(next(iter(statistics.values())))}")
    figure.legend(*panel.get_legend_handles_labels(), loc="outside right center")
    found = [
        Drawn(
            figure,
            f"Ranks of the input embeddings before any tuning: {min(r[2] for r in ranks):.0f} to "
            f"{max(r[2] for r in ranks):.0f} directions hold 99 % of a task's energy.",
            "rank of input embeddings",
        )
    ]
    pretrained = [subspace.leading(statistics["pretraining"], energy) for energy in ENERGIES]
    shares = np.array([[_inside(statistics[task], space) for space in pretrained] for task in tasks])
    least, most = 100 * shares[:, -1].min(), 100 * shares[:, -1].max()
    found.append(
        Drawn(
            _map(shares, list(tasks), [f"{100 * energy:.0f} %" for energy in ENERGIES], 1.0, "{:.2f}"),
            f"Share of each task's energy inside the pre-trained space at three of its energies. At 99 % it is "
            f"{least:.0f} to {most:.0f} %: the large discrepancy between tasks and pre-training that the paper found "
            + ("shows" if most < 50 else "does not show" if least > 90 else "shows in part")
            + " (it does where all tasks are below 50 %, and does not where all are above 90 %).",
            "energy inside the pre-trained space",
        )
    )
    spaces = {task: subspace.leading(statistics[task], 0.9) for task in tasks}
    overlaps = np.array([[_overlap(spaces[a], spaces[b]) for b in tasks] for a in tasks])
    apart = overlaps[~np.eye(len(tasks), dtype=bool)]
    apart = apart[np.isfinite(apart)]
    told = (
        f" Between tasks it is {apart.min():.2f} to {apart.max():.2f}, {apart.mean():.2f} on average: the large "
        f"discrepancy between tasks that the paper found {'shows' if apart.mean() < 0.5 else 'does not show'} (it does "
        "below 0.5 on average)."
        if len(apart)
        else ""
    )
    found.append(
        Drawn(
            _map(overlaps, list(tasks), list(tasks), 1.0, "{:.2f}"),
            f"Overlap of the spaces that hold 90 % of each task's energy, 1 for the same space.{told}",
            "overlap of the tasks' spaces",
        )
    )
    return found


def _overlap(one: torch.Tensor, other: torch.Tensor) -> float:
    """NaN where there is none."""
    from mcit_core import subspace

    found = subspace.overlap(one, other)
    return math.nan if found is None else found


def _inside(gram: object, basis: object) -> float:
    """The share of a Gram matrix's energy in a space."""
    matrix, space = np.asarray(gram), np.asarray(basis)
    return float(np.trace(space.T @ matrix @ space) / np.trace(matrix))
