"""LLaCA's instruction grouping: tasks whose instructions are alike share one set of tuned weights.

A task joins the earlier group whose instructions are nearest if their mean pairwise TF-IDF cosine reaches the
threshold, else it opens a group. At test time the group is found from the instruction.

Source: Qiao et al., LLaCA, arXiv 2410.10868, section on instruction grouping, and its released code, which compares
answer-format templates (the last line of a prompt), starts a new group from the weights of the task before, and decides
once per test file. One vocabulary over the tasks seen so far and words as terms are a reconstruction; the released code
fits a vocabulary on each pair of tasks and leaves English stop words out.
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
    start: Literal["previous", "pretrained"] = Field(
        "previous", description="what a new group's weights begin as: those of the task before, or new ones"
    )
    by: Literal["template", "question"] = Field(
        "template", description="what is compared: the instruction's last line, or all of it but that; one line is both"
    )
    route: Literal["row", "file"] = Field(
        "row",
        description="who chooses the group at test time: each row, or a test file as a whole, as released",
    )


def compared(instruction: str, by: Literal["template", "question"]) -> str:
    """The part of an instruction that groups go by."""
    *question, template = instruction.strip().split("\n")
    return template if by == "template" or not question else "\n".join(question)


class TfidfGroups:
    """Groups of tasks, learned one task after another. `instructions`: task -> its training instructions, in order."""

    def __init__(self, instructions: dict[str, list[str]], settings: GroupingSettings) -> None:
        self.settings = settings
        self.members: list[list[str]] = []
        self._texts = {task: sorted(set(self._compared(texts))) for task, texts in instructions.items()}
        seen: list[str] = []
        for task in self._texts:
            seen.append(task)
            self._fit(seen)
            near = self._nearness(self._texts[task]).mean(0) if self.members else np.zeros(0)
            if len(near) and near.max() >= settings.threshold:
                self.members[int(near.argmax())].append(task)
            else:
                self.members.append([task])

    def _compared(self, texts: list[str]) -> list[str]:
        return [compared(text, self.settings.by) for text in texts]

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

    def begins_from(self, task: str) -> int | None:
        group = self.of(task)
        tasks = list(self._texts)
        if self.members[group][0] != task:
            return group
        first = task == tasks[0]
        return None if first or self.settings.start == "pretrained" else self.of(tasks[tasks.index(task) - 1])

    def choose(self, texts: list[str]) -> list[int]:
        """The nearest group of every instruction; with `route: file` one for all, below the threshold the last one. A
        file is its distinct texts, as a task is when groups are formed."""
        texts = self._compared(texts)
        if self.settings.route == "row":
            return [int(i) for i in self._nearness(texts).argmax(1)]
        near = self._nearness(sorted(set(texts))).mean(0)
        found = int(near.argmax()) if near.max() >= self.settings.threshold else len(self.members) - 1
        return [found] * len(texts)


class InstructionGroups(Protection[GroupingSettings]):
    """Chooses which weights a stage starts from and which ones answer; does nothing while a stage trains."""

    Settings = GroupingSettings

    @classmethod
    def groups(cls, settings: GroupingSettings, bench: Workbench, tasks: tuple[str, ...]) -> TfidfGroups:
        return TfidfGroups({task: bench.rows(task, "train").instructions for task in tasks}, settings)
