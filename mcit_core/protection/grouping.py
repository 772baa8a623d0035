"""LLaCA's instruction grouping: tasks whose instructions are alike share one set of tuned weights.

A task joins the earlier group whose instructions are nearest if their mean pairwise TF-IDF cosine reaches the
threshold, else it opens a group. At test time the group is found from the instruction alone.

Source: Qiao et al., LLaCA, arXiv 2410.10868, section on instruction grouping; one vocabulary over the tasks seen so far
and words as terms are a reconstruction.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field

from mcit_core.config import Section, Share
from mcit_core.protection import Protection

if TYPE_CHECKING:
    from mcit_core.data.workbench import Workbench


class GroupingSettings(Section):
    enabled: Literal[True] = True
    threshold: Share = Field(0.3, description="mean TF-IDF cosine from which a task joins an earlier group")


class TfidfGroups:
    """Groups of tasks, learned one task after another. `instructions`: task -> its training instructions, in order."""

    def __init__(self, instructions: dict[str, list[str]], threshold: float) -> None:
        self.members: list[list[str]] = []
        self._texts = {task: sorted(set(texts)) for task, texts in instructions.items()}
        seen: list[str] = []
        for task in self._texts:
            seen.append(task)
            self._fit(seen)
            near = self._nearness(self._texts[task]).mean(0) if self.members else np.zeros(0)
            if len(near) and near.max() >= threshold:
                self.members[int(near.argmax())].append(task)
            else:
                self.members.append([task])

    def _fit(self, tasks: list[str]) -> None:
        from sklearn.feature_extraction.text import TfidfVectorizer

        self._vectorizer = TfidfVectorizer(token_pattern=r"\S+")
        self._vectorizer.fit([text for task in tasks for text in self._texts[task]])

    def _nearness(self, texts: list[str]) -> np.ndarray:
        """[texts, groups]: the mean cosine between a text and a group's instructions. Rows of TF-IDF have length 1, so
        the mean over pairs is a product with the mean row."""
        rows = self._vectorizer.transform(texts)
        means = [
            self._vectorizer.transform([text for task in group for text in self._texts[task]]).mean(0)
            for group in self.members
        ]
        return np.asarray(rows @ np.asarray(np.concatenate(means)).T)

    def of(self, task: str) -> int:
        return next(i for i, group in enumerate(self.members) if task in group)

    def choose(self, texts: list[str]) -> list[int]:
        """The nearest group of every instruction."""
        return [int(i) for i in self._nearness(texts).argmax(1)]


class InstructionGroups(Protection[GroupingSettings]):
    """Chooses which weights a stage starts from and which ones answer; does nothing while a stage trains."""

    Settings = GroupingSettings

    @classmethod
    def groups(cls, settings: GroupingSettings, bench: Workbench, tasks: tuple[str, ...]) -> TfidfGroups:
        return TfidfGroups({task: bench.rows(task, "train").instructions for task in tasks}, settings.threshold)
