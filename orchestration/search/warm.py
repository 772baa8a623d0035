"""What a search begins with: settings of other RUNs that are points of its space.

A finished trial counts where it is of the very experiment that the search would run. Under which code and versions it
was trained is not looked at. What other RUNs have trained is not trained again in any case: stages come from the store.
"""

from __future__ import annotations

from pathlib import Path

from mcit_core.config import Value
from mcit_core.yaml_document import SpecError
from orchestration.plan.space import Point, Space
from orchestration.plan.spec import Range, RobustRule, SweepSpec
from orchestration.plan.sweep_file import load_spec
from orchestration.plan.trials import Trial, field_of, make_trials
from orchestration.results.reading import finished, read_results
from orchestration.search import Proposal
from orchestration.search.objectives import judged, reading_row
from orchestration.search.proposals import KNOWN, run_trials_of
from orchestration.search.settings import SearchSettings

#: settings, and what there is to say of the RUNs that they are from
KnownSettings = tuple[list[Proposal], list[str]]


def known_settings(spec: SweepSpec, settings: SearchSettings, space: Space) -> KnownSettings:
    """The settings of the RUNs in `settings.known`, numbered downwards from -1, each once, with what there is to say of
    each RUN. Raises SpecError for one that cannot be read."""
    found: dict[str, Proposal] = {}
    said = []
    for name in settings.known:
        run, before, seen = Path(name), len(found), set()
        try:
            trials = run_trials_of(load_spec(run / "sweep.yaml"), run)
            rows = {str(row["trial"]): row for row in finished(read_results(run).trials)}
        except (SpecError, ValueError, OSError) as error:
            raise SpecError(f"search.from: {name} cannot be read: {error}") from error
        for trial in trials:
            point = point_of(trial, space)
            if point is None or str(point) in seen:
                continue
            seen.add(str(point))
            own = [one for one in make_trials(spec, [point], 0) if one.setting == 0]
            if str(point) in found or not all(one.id in rows for one in own):
                continue
            cells = {(one.order, one.experiment.seed): rows[one.id] for one in own}
            proposal = Proposal(KNOWN - len(found), KNOWN, point)
            told = judged(proposal, cells, reading_row, settings, spec.robust or RobustRule())
            if told.state == "complete":
                found[str(point)] = told
        others = len(seen) - (len(found) - before)
        left = f"; {others} others have other orders or seeds, or were known" if others else ""
        said.append(f"search.from: {len(found) - before} settings of {name} are known{left}")
    return list(found.values()), said


def point_of(trial: Trial, space: Space) -> Point | None:
    """The point of a space that a trial lies at, None where it lies at none."""
    point: dict[str, Value] = {}
    for axis, values in space.axes.items():
        if space.applies(axis, point):
            found = trial.method if axis == "method" else field_of(trial.experiment, axis)
            # as the axis has it: a rate of 1 is 1.0 in an experiment
            if not isinstance(values, Range):
                found = values[values.index(found)] if found in values else found
            elif values.holds(found):
                found = values.nearest(float(str(found))) if not isinstance(found, int) else found
                found = int(found) if values.whole else found
            point[axis] = found
    point = space.reduced(point)
    return point if space.holds(point) and space.fault(point) is None else None
