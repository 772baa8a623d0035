"""Fwd-Prompt's figures on any benchmark, each with a sentence on whether what the paper observed shows here.

Source: Zheng et al., arXiv 2401.09181: what earlier tasks do to those not yet learned, and the spaces of the tasks'
input embeddings. What lies behind the captions of its figures is a reconstruction.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from orchestration.report.charts import Datum, Figure, Panel, Series, grouped_bars, heat_map, room_for
from orchestration.report.context import PALETTE, Context
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


def forward_maps(context: Context) -> list[Figure]:
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
        panel = _map(gains, matrix.tasks, matrix.tasks, 100.0, words=("after", "tested on"))
        found.append(Figure(f"forward transfer {label}", caption, [panel], columns=1, most=460))
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


def _map(
    values: np.ndarray,
    rows: list[str],
    columns: list[str],
    most: float,
    form: str = "+.0f",
    words: tuple[str, str] = ("", ""),
) -> Panel:
    return heat_map(rows, columns, values.tolist(), most, words=words, form=form, signed=most > 1)


def space_figures(bench: Workbench, tasks: tuple[str, ...]) -> list[Figure]:
    """The spaces of the tasks' input embeddings, as the frozen model feeds them to its language model, by direction:
    their ranks, what of them lies inside the pre-trained space, and how far they overlap."""
    from mcit_core import subspace

    statistics = {task: bench.statistics(task, "unit").gram for task in ("pretraining", *tasks)}
    spectra = {task: subspace.spectrum(gram)[0] for task, gram in statistics.items()}
    labels = [*(f"{100 * energy:.0f} % of the energy" for energy in ENERGIES), "effective rank"]
    ranks = {
        task: [*(float(subspace.energy_rank(values, energy)) for energy in ENERGIES), subspace.effective_rank(values)]
        for task, values in spectra.items()
    }
    all_of_it = [values[len(ENERGIES) - 1] for values in ranks.values()]
    found = [
        Figure(
            "rank of input embeddings",
            f"Ranks of the input embeddings before any tuning, of {len(next(iter(statistics.values())))} directions: "
            f"{min(all_of_it):.0f} to {max(all_of_it):.0f} hold 99 % of a task's energy.",
            [_ranks(ranks, labels)],
            [Series(label, colour) for label, colour in zip(labels, PALETTE, strict=False)],
            key="measure",
            columns=1,
        )
    ]
    pretrained = [subspace.leading(statistics["pretraining"], energy) for energy in ENERGIES]
    shares = np.array([[_inside(statistics[task], space) for space in pretrained] for task in tasks])
    least, most = 100 * shares[:, -1].min(), 100 * shares[:, -1].max()
    found.append(
        Figure(
            "energy inside the pre-trained space",
            f"Share of each task's energy inside the pre-trained space at three of its energies. At 99 % it is "
            f"{least:.0f} to {most:.0f} %: the large discrepancy between tasks and pre-training that the paper found "
            + ("shows" if most < 50 else "does not show" if least > 90 else "shows in part")
            + " (it does where all tasks are below 50 %, and does not where all are above 90 %).",
            [_map(shares, list(tasks), [f"{100 * energy:.0f} %" for energy in ENERGIES], 1.0, ".2f")],
            columns=1,
            most=460,
        )
    )
    spaces = {task: subspace.leading(statistics[task], 0.9) for task in tasks}
    overlaps = np.array([[_overlap(spaces[a], spaces[b]) for b in tasks] for a in tasks])
    apart = overlaps[~np.eye(len(tasks), dtype=bool)]
    apart = apart[np.isfinite(apart)]
    observed = (
        f" Between tasks it is {apart.min():.2f} to {apart.max():.2f}, {apart.mean():.2f} on average: the large "
        f"discrepancy between tasks that the paper found {'shows' if apart.mean() < 0.5 else 'does not show'} (it does "
        "below 0.5 on average)."
        if len(apart)
        else ""
    )
    found.append(
        Figure(
            "overlap of the tasks' spaces",
            f"Overlap of the spaces that hold 90 % of each task's energy, 1 for the same space.{observed}",
            [_map(overlaps, list(tasks), list(tasks), 1.0, ".2f")],
            columns=1,
            most=460,
        )
    )
    return found


def _ranks(ranks: dict[str, list[float]], labels: list[str]) -> Panel:
    rows: list[Datum] = [
        {"task": task, "measure": label, "directions": value}
        for task, values in ranks.items()
        for label, value in zip(labels, values, strict=True)
    ]
    spec = grouped_bars("task", "measure", "directions", 12)
    return Panel("", spec, rows, room_for(ranks) + 220)


def _overlap(one: torch.Tensor, other: torch.Tensor) -> float:
    """NaN where there is none."""
    from mcit_core import subspace

    found = subspace.overlap(one, other)
    return math.nan if found is None else found


def _inside(gram: object, basis: object) -> float:
    """The share of a Gram matrix's energy in a space."""
    matrix, space = np.asarray(gram), np.asarray(basis)
    return float(np.trace(space.T @ matrix @ space) / np.trace(matrix))
