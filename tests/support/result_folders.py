"""Result folders as repositories of continual instruction tuning leave them, of answers made up by seed."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path

Answers = Sequence[tuple[str, str | list[str]]]


def answers(seed: int, right: int, wrong: int, gold: str = "B", false: str = "A") -> list[tuple[str, str]]:
    """Predictions and golds, so many of them right, in any order."""
    made = [(gold, gold)] * right + [(false, gold)] * wrong
    random.Random(seed).shuffle(made)
    return made


def write_stage(folder: Path, given: Answers | None, printed: str, judged: str = "ans_gt.json") -> Path:
    """A stage's folder: Result.text as it is `printed` ("" for none), answers with golds where they are given."""
    folder.mkdir(parents=True)
    if printed:
        (folder / "Result.text").write_text(printed)
    rows = [{"pred": said, "ground_truth": gold} for said, gold in given or ()]
    merged = [{"question_id": str(i), "text": said} for i, (said, _) in enumerate(given or ())]
    (folder / "merge.jsonl").write_text("".join(json.dumps(row) + "\n" for row in merged))
    if rows:
        text = json.dumps(rows, indent=4) if judged == "ans_gt.json" else "\n".join(map(json.dumps, rows))
        (folder / judged).write_text(text)
    return folder


def write_ucit(root: Path, tasks: Sequence[str] = ("ImageNet-R", "ArxivQA", "IconQA"), rows: int = 20) -> Path:
    """A run of MCITlib: of stage k and task j, rows - 2 (k - j) answers are right. Returns its `each_dataset`."""
    place = root / "LLaVA" / "LoRA-FT" / "results" / "UCIT" / "each_dataset"
    for k in range(len(tasks)):
        for j, task in enumerate(tasks[: k + 1]):
            right = rows - 2 * (k - j)
            printed = f"Samples: {rows}\nAccuracy: {100 * right / rows:.2f}%\n"
            write_stage(place / task / f"LoRA-task{k + 1}", answers(k, right, rows - right), printed)
    return place
