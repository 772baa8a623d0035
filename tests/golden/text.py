"""A short run of a preset as readable text, and the numbers of such a text."""

from __future__ import annotations

from pathlib import Path

import torch

from mcit_core.data.workbench import Workbench
from mcit_core.methods import build_experiment
from mcit_core.stages.results import StageResult
from mcit_core.training.sequence import Sequence

PRESETS = ("fwd_prompt", "fwd_prompt_directions", "pegp_lora", "llaca", "ema_taylor")
ORDER = ("attribute", "ground", "bars")
#: a rate at which three steps move every preset's answers
SETTINGS = {"train.steps": 3, "train.batch_size": 8, "train.lr": 0.03, "evaluation.cells": "all"}
FOLDER = Path(__file__).parent
LOSSES = "losses of the steps of every stage"
ACCURACY = "test accuracy in percent after every stage"
CONTENT = "test accuracy in percent after every stage, right in content alone"


def row(name: str, words: list[str]) -> str:
    return f"{name:12}" + "".join(f"{word:>12}" for word in words)


def accuracies(result: StageResult, heading: str) -> list[float]:
    cells = {cell.task: cell for cell in result.accuracy if cell.split == "test"}
    return [100 * (cells[t].accuracy if heading == ACCURACY else cells[t].content_accuracy) for t in ORDER]


def golden_text(preset: str, bench: Workbench) -> str:
    torch.set_num_threads(1)
    results = list(Sequence(build_experiment("tiny", "tiny", preset, ORDER, 0, SETTINGS), bench))
    lines = [f"{preset}, benchmark tiny, model tiny, seed 0, batches of {SETTINGS['train.batch_size']}", "", LOSSES]
    for result in results[1:]:
        lines.append(row(str(result.task), [f"{loss:.6f}" for loss in result.traces["loss"] if loss is not None]))
    for heading in (ACCURACY, CONTENT):
        lines += ["", heading, row("", list(ORDER))]
        for result in results:
            lines.append(row(result.task or "untouched", [f"{value:.3f}" for value in accuracies(result, heading)]))
    return "\n".join([*lines, ""])


def numbers(text: str, heading: str) -> dict[str, list[float]]:
    """The rows of numbers below a heading, by name."""
    block = text.split(f"\n{heading}\n")[1].split("\n\n")[0]
    rows = [line.split() for line in block.splitlines() if line and not line.startswith(" ")]
    return {name: [float(word) for word in words] for name, *words in rows}
