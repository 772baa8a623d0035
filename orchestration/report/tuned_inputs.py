"""Fwd-Prompt's figures of what tuning does to the tasks' input embeddings: contours before and after direct tuning, and
ranks in each state.

Source: Zheng et al., arXiv 2401.09181; of the figures only their captions were to be had, so that what is measured is a
reconstruction (see `mcit_core.tuned_inputs`). Contours hold the given share of a task's rows: highest-density regions
(Hyndman, The American Statistician 50, 1996).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import torch
from matplotlib.figure import Figure as Canvas
from scipy.stats import gaussian_kde

from mcit_core import subspace
from mcit_core.data.statistics import row_statistics
from mcit_core.data.workbench import Workbench
from mcit_core.training.stage import build_tuner
from mcit_core.tuned_inputs import TunedInputs, tuned_inputs
from orchestration.report.charts import (
    Datum,
    Figure,
    Panel,
    Series,
    colour,
    dash,
    grouped_bars,
    layers,
    only,
    quantity,
    room_for,
    told,
)
from orchestration.report.context import PALETTE
from orchestration.report.tuned_states import METHODS, States

#: shares of a task's rows that its contours hold, and the widths of their lines
CONTOURS = {0.5: 2.2, 0.9: 1.1}
#: places along each side of the grid on which a density is taken, and rows that it is taken of at most
GRID, MOST_ROWS = 80, 1000
#: the state before any tuning, and prompts that no stage has trained
INITIAL, UNTRAINED = "initial", "untrained prompts"
#: what is said of the input's rank: its name, and the share of the energy, None for the effective rank
RANKS = {"90 % of the energy": 0.9, "99 % of the energy": 0.99, "effective rank": None}
#: the colours of the two states without training
UNTUNED = ("#777777", "#c4c4c4")
#: what a caption ends with, since of the paper only abstract and captions were to be had
UNKNOWN = "This is what is seen, of one seed; what the paper says of its own figure was not to be had."
DASHES = ((), (5, 2), (2, 2))
#: state -> task -> what the language model is fed
Inputs = Mapping[str, Mapping[str, TunedInputs]]


def tuned_figures(bench: Workbench, tasks: Sequence[str], states: States) -> tuple[list[Figure], list[str]]:
    """The figures that the states allow, and in words what of them is not made, and what is missing in them."""
    if states.first is None:
        return [], [f"not made: contours and ranks of input embeddings after tuning. {states.lacks()}"]
    inputs = gather(bench, tasks, states)
    figures, said = [], []
    if "direct" in states.found:
        figures.append(contour_figure(inputs, states))
    else:
        said.append(f"not made: contours of input embeddings after direct tuning. {states.lacks('direct')}")
    figures.append(rank_figure(inputs, states))
    lacking = states.lacks()
    return figures, [*said, *([f"ranks of tuned input embeddings: {lacking}"] if lacking else [])]


def gather(bench: Workbench, tasks: Sequence[str], states: States) -> Inputs:
    """What the language model is fed for each task in each state, in the order of the paper's figure."""
    assert states.first is not None
    start = build_tuner(states.first.experiment, bench, None)
    inputs: dict[str, dict[str, TunedInputs]] = {name: {} for name in (INITIAL, UNTRAINED, *states.found)}
    for task in tasks:
        tuners = {UNTRAINED: start, **{name: state.tuners[task] for name, state in states.found.items()}}
        inputs[INITIAL][task], tuned = tuned_inputs(bench, task, tuners)
        for name, found in tuned.items():
            inputs[name][task] = found
    return inputs


# contours


@dataclass(frozen=True)
class Plane:
    """Where points are drawn: the origin [d], two directions [d, 2], and the share of the variance along each."""

    centre: torch.Tensor
    axes: torch.Tensor
    shares: tuple[float, float]

    @classmethod
    def of(cls, points: torch.Tensor) -> Plane:
        """The first two principal directions of points [N, d]."""
        statistics = row_statistics(points)
        values, vectors = subspace.spectrum(statistics.matrix(center=True))
        shares = (values[:2] / values.sum()).tolist()
        return cls(statistics.total / statistics.count, vectors[:, :2], (shares[0], shares[1]))

    def places(self, points: torch.Tensor) -> np.ndarray:
        """[N, 2]."""
        found: np.ndarray = ((points - self.centre) @ self.axes).numpy()
        return found


def contours(places: np.ndarray, share: float) -> list[np.ndarray]:
    """Closed lines [k, 2] around the densest region that holds `share` of places [N, 2]; none where these are too few
    or lie on a line. The grid lies along the places' own principal axes, so that a narrow region is not cut up."""
    some = places[:: -(-len(places) // MOST_ROWS)]
    centre = some.mean(0)
    _, spread, turn = np.linalg.svd(some - centre, full_matrices=False)
    if len(some) < 3 or spread[1] <= 1e-6 * spread[0]:
        return []
    axes = turn * spread[:, None] / math.sqrt(len(some))
    own = np.linalg.solve(axes.T, (some - centre).T)
    density = gaussian_kde(own)
    # as far as a kernel reaches, so that every line closes
    reach = 4 * np.sqrt(np.diag(density.covariance))
    sides = [np.linspace(low, high, GRID) for low, high in zip(own.min(1) - reach, own.max(1) + reach, strict=True)]
    grid = np.stack(np.meshgrid(*sides)).reshape(2, -1)
    level = np.quantile(density(own), 1 - share)
    drawn = Canvas().add_subplot().contour(*sides, density(grid).reshape(GRID, GRID), [level])
    return [centre + np.asarray(line) @ axes for line in drawn.allsegs[0]]


def contour_figure(inputs: Inputs, states: States) -> Figure:
    """Before and after direct tuning on the axes of the untouched points of all tasks, which stay as they are."""
    tasks = list(inputs[INITIAL])
    plane = Plane.of(torch.cat([inputs[INITIAL][task].points for task in tasks]))
    shown = {"before": INITIAL, "after direct tuning": "direct"}
    rows = {
        title: [row for task in tasks for row in _outline(task, plane.places(inputs[state][task].points))]
        for title, state in shown.items()
    }
    domains = [_ends([row[axis] for part in rows.values() for row in part]) for axis in ("x", "y")]
    panels = [Panel(title, _contour_spec(plane, domains), part, 320) for title, part in rows.items()]
    series = [
        Series(task, PALETTE[i % len(PALETTE)], dash=DASHES[i // len(PALETTE) % len(DASHES)])
        for i, task in enumerate(tasks)
    ]
    caption = (
        f"Input embeddings before and after direct tuning, of {states.found['direct'].told}. A point is the mean "
        "direction of the vectors that the language model is fed for a training row, after tuning with the prompts "
        "that its task's stage gives it (our reconstruction). The thick line holds 50 % of a task's rows, the thin one "
        "90 %; the dot is their mean. Axes, the same in both: the principal directions of the untouched points of all "
        f"tasks, with their share of the variance.{_apart(inputs)}"
    )
    return Figure("contours of input embeddings", caption, panels, series, key="task")


def _outline(task: str, places: np.ndarray) -> list[Datum]:
    """The rows of a task's contours and of its mean."""
    x, y = (float(value) for value in places.mean(0))
    found: list[Datum] = [{"kind": "mean", "task": task, "x": x, "y": y}]
    for share in CONTOURS:
        for number, line in enumerate(contours(places, share)):
            ring = f"{task} {share} {number}"
            found += [
                {"kind": "contour", "task": task, "share": share, "ring": ring, "step": i, "x": float(a), "y": float(b)}
                for i, (a, b) in enumerate(line)
            ]
    return found


def _ends(values: Sequence[str | float | bool | None]) -> tuple[float, float]:
    numbers = [float(value) for value in values if value is not None]
    room = 0.04 * (max(numbers) - min(numbers)) or 1.0
    return min(numbers) - room, max(numbers) + room


def _contour_spec(plane: Plane, domains: Sequence[tuple[float, float]]) -> Mapping[str, object]:
    place = {
        axis: quantity(axis, f"{word} direction ({100 * share:.0f} %)", ends, axis={"tickCount": 6})
        for axis, word, share, ends in zip(("x", "y"), ("first", "second"), plane.shares, domains, strict=True)
    }
    look = {"color": colour("task"), "strokeDash": dash("task")}
    lines = {
        "transform": only("contour"),
        "mark": {"type": "line", "interpolate": "linear"},
        "encoding": {
            **place,
            **look,
            "detail": {"field": "ring"},
            "order": {"field": "step", "type": "quantitative"},
            "strokeWidth": {
                "field": "share",
                "type": "ordinal",
                "scale": {"domain": [*CONTOURS], "range": [*CONTOURS.values()]},
                "legend": None,
            },
            "tooltip": told(task="task", share="rows inside|.0%"),
        },
    }
    means = {
        "transform": only("mean"),
        "mark": {"type": "point", "filled": True, "size": 60},
        "encoding": {**place, "color": colour("task"), "tooltip": told(task="task")},
    }
    return layers(lines, means, height=320, zoom=("x", "y"))


def _apart(inputs: Inputs) -> str:
    """How far the tasks lie apart before and after, and what of it untrained prompts do."""
    if len(inputs[INITIAL]) < 2:
        return ""
    before, start, after = (_distances(inputs[name]) for name in (INITIAL, UNTRAINED, "direct"))
    return (
        f" In all directions, tasks' means are {before:.2f} times as far apart as a row is from its own task's mean, "
        f"with untrained prompts {start:.2f} times, after direct tuning {after:.2f} times. Prompts that rows share "
        f"draw all of them together, so that sizes in the two panels say little. {UNKNOWN}"
    )


def _distances(found: Mapping[str, TunedInputs]) -> float:
    """The mean distance between two tasks' means, over the root mean square distance of a row from its own task's mean:
    prompts that all rows share draw both together alike."""
    means = [one.points.mean(0) for one in found.values()]
    between = float(np.mean([float((a - b).norm()) for a, b in combinations(means, 2)]))
    own = torch.cat([(one.points - mean).square().sum(1) for one, mean in zip(found.values(), means, strict=True)])
    return between / max(float(own.mean().sqrt()), 1e-12)


# ranks


def rank_figure(inputs: Inputs, states: States) -> Figure:
    ranks = {state: {task: _ranks(one) for task, one in by_task.items()} for state, by_task in inputs.items()}
    panels = [_rank_panel(ranks, name) for name in RANKS]
    series = [Series(state, shade) for state, shade in zip(ranks, (*UNTUNED, *PALETTE), strict=False)]
    width = next(iter(inputs[INITIAL].values())).points.shape[1]
    lacking = states.lacks()
    caption = (
        f"Ranks of the vectors that the language model is fed for a task's training rows, of {width} directions; all "
        "positions count by their direction, and with them the prompts that a state gives to each row (our "
        f"reconstruction). {INITIAL}: without prompts; {UNTRAINED}: as the tuner starts with; "
        f"{'; '.join(f'{name}: {state.told}' for name, state in states.found.items())}."
        f"{f' {lacking}.' if lacking else ''}{_seen(ranks, inputs)}"
    )
    return Figure("rank of tuned input embeddings", caption, panels, series, key="state")


def _ranks(found: TunedInputs) -> dict[str, float]:
    values, _ = subspace.spectrum(found.statistics.gram)
    return {
        name: subspace.effective_rank(values) if energy is None else float(subspace.energy_rank(values, energy))
        for name, energy in RANKS.items()
    }


def _rank_panel(ranks: Mapping[str, Mapping[str, Mapping[str, float]]], name: str) -> Panel:
    rows: list[Datum] = [
        {"task": task, "state": state, "measure": name, "directions": found[name]}
        for state, by_task in ranks.items()
        for task, found in by_task.items()
    ]
    spec = grouped_bars("task", "state", "directions", 11)
    return Panel(name, spec, rows, room_for(str(row["task"]) for row in rows) + 220)


def _seen(ranks: Mapping[str, Mapping[str, Mapping[str, float]]], inputs: Inputs) -> str:
    """The ranks' means over tasks, and what of them is there without training."""
    means = {
        state: [float(np.mean([found[name] for found in by_task.values()])) for name in [*RANKS][1:]]
        for state, by_task in ranks.items()
    }
    listed = ", ".join(f"{state} {high:.0f} and {spread:.1f}" for state, (high, spread) in means.items())
    own, with_prompts = (sum(one.statistics.count for one in inputs[state].values()) for state in (INITIAL, UNTRAINED))
    above = [state for state in means if state in METHODS and means[state][1] > means[UNTRAINED][1]]
    return (
        f" Mean rank over tasks at 99 % of the energy, and effective rank: {listed}. Prompts are "
        f"{100 * (1 - own / with_prompts):.0f} % of the positions and raise the rank untrained; training raises the "
        f"effective rank further in {', '.join(above) or 'no state'}. {UNKNOWN}"
    )
