"""Settings of a robust search that are behind: dropped after few of their orders and seeds.

A setting's trials run one after another, in the order of the sweep file, and after each of them its final accuracies
are compared, cell by cell (order, seed, task), with those of a rival: the best setting that the search knew when it
proposed the batch. Where a one-sided Wilcoxon signed-rank test says that it is behind, the rest is not run. The cells
of one trial are not independent, so that this is a rule of thumb and no inference; no verdict is made from it.

All of it is decided from a fixed rival and in a fixed order, so that it is the same for any number of workers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from orchestration.plan.trials import Trial

#: the level of the test, and how many cells must differ for it to be made
LEVEL, LEAST = 0.1, 6
#: "order | seed | task" -> accuracy on validation rows after the last stage
Cells = Mapping[str, float]


def cell(trial: Trial, task: str) -> str:
    return f"{trial.order} | {trial.experiment.seed} | {task}"


def behind(own: Cells, rival: Cells) -> bool:
    """Whether the cells that both have say that `own` is behind."""
    gaps = [own[name] - rival[name] for name in own if name in rival]
    if sum(gap != 0 for gap in gaps) < LEAST:
        return False
    from scipy.stats import wilcoxon  # takes a second to load

    return bool(wilcoxon(gaps, alternative="less").pvalue < LEVEL)


class Paired:
    """The race of a batch's settings against `rival`. `cells_of`: what a trial showed, None until it has ended; it is
    asked when the trial after it may be begun."""

    def __init__(self, trials: Iterable[Trial], rival: Cells, cells_of: Callable[[str], Cells | None]) -> None:
        self._rival, self._cells_of = rival, cells_of
        self._before: dict[str, list[str]] = {}  # trial -> those of its setting that come before it
        settings: dict[int, list[str]] = {}
        for trial in trials:
            if trial.setting is not None:
                line = settings.setdefault(trial.setting, [])
                self._before[trial.id] = [*line]
                line.append(trial.id)
        #: trials that are not run -> the number of stages that they have
        self.stopped: dict[str, int] = {}

    def __contains__(self, trial: str) -> bool:
        return trial in self._before

    def held(self, trial: str) -> bool:
        """Whether a trial is not to run yet, or not at all."""
        own: dict[str, float] = {}
        for name in self._before.get(trial, ()):
            found = self._cells_of(name)
            if found is None:
                return True
            own |= found
            # a setting that was behind once is not run on, whatever cells of it would follow
            if name in self.stopped or behind(own, self._rival):
                self.stopped[trial] = 0
                return True
        return False

    def reach(self, trial: str, stages: int, value: float) -> bool:
        return False

    def leave(self, trial: str) -> bool:
        """Whether another trial may be begun now."""
        return trial in self
