"""The files that a trial's MLflow run carries: its experiment, and its accuracy matrix as CSV and as a picture."""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from mcit_core.stages.matrix_csv import matrix_csv
from mcit_core.yaml_document import dump_yaml
from orchestration.keep.trial_record import TrialRecord

#: pixels: of a cell, of the names of stages beside them, of the names of tasks above them
WIDE, HIGH, BESIDE, ABOVE = 96, 40, 140, 32
#: tasks of which a picture can be looked at
MOST = 40


def write_artefacts(folder: Path, record: TrialRecord) -> None:
    """experiment.yaml, accuracy_matrix.csv and, where there is a matrix, accuracy_matrix.png (accuracy in percent)."""
    order = record.trial.experiment.order
    rows = zip(("untouched", *order), [record.untouched("test") or [], *record.matrix("test")], strict=False)
    (folder / "accuracy_matrix.csv").write_text(matrix_csv(order, rows))
    experiment = record.trial.experiment.model_dump(mode="json")
    (folder / "experiment.yaml").write_text(dump_yaml(experiment))
    _matrix_picture(folder / "accuracy_matrix.png", record)


def _matrix_picture(path: Path, record: TrialRecord) -> None:
    """Drawn by hand: a figure of matplotlib takes ten times as long, which a sweep of hundreds of trials notices."""
    matrix, order = record.matrix("test"), record.trial.experiment.order
    if not matrix or len(order) > MOST:
        return
    picture = Image.new("RGB", (BESIDE + WIDE * len(order) + 8, ABOVE + HIGH * len(matrix) + 8), "white")
    draw, font = ImageDraw.Draw(picture), _font()
    for j, task in enumerate(order):
        draw.text((BESIDE + WIDE * (j + 0.5), ABOVE / 2), _short(task, WIDE), "black", font, anchor="mm")
    for i, row in enumerate(matrix):
        top = ABOVE + HIGH * i
        draw.text((BESIDE - 8, top + HIGH / 2), _short(f"after {order[i]}", BESIDE - 8), "black", font, anchor="rm")
        for j, cell in enumerate(row):
            if cell is not None and math.isfinite(cell):
                left = BESIDE + WIDE * j
                draw.rectangle((left, top, left + WIDE - 1, top + HIGH - 1), _colour(cell))
                ink = "white" if cell < 0.6 else "black"
                draw.text((left + WIDE / 2, top + HIGH / 2), f"{100 * cell:.0f}", ink, font, anchor="mm")
    picture.save(path, compress_level=1)


@cache
def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(15)


def _short(text: str, room: float) -> str:
    """As much of a text as fits."""
    font = _font()
    while font.getlength(text) > room - 6 and len(text) > 2:
        text = text[:-2] + "…"
    return text


#: viridis at 0, 0.25, 0.5, 0.75 and 1
VIRIDIS = ((68, 1, 84), (59, 82, 139), (33, 145, 140), (94, 201, 98), (253, 231, 37))


def _colour(value: float) -> tuple[int, int, int]:
    place = min(max(value, 0.0), 1.0) * (len(VIRIDIS) - 1)
    i = min(int(place), len(VIRIDIS) - 2)
    red, green, blue = (round(a + (b - a) * (place - i)) for a, b in zip(VIRIDIS[i], VIRIDIS[i + 1], strict=True))
    return red, green, blue
