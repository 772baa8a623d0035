"""Figures as files for a paper: SVG, PDF and PNG, and the numbers that each shows as CSV."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from pathlib import Path

import vl_convert

from mcit_core.folders import write_atomic
from orchestration.report.charts import Figure, whole

FORMS = ("svg", "pdf", "png")


def write_figure(folder: Path, name: str, figure: Figure) -> None:
    """<name>.svg, .pdf, .png and .csv, each whole or not at all."""
    picture = vl_convert.vegalite_to_svg(dict(whole(figure)))
    write_atomic(folder / f"{name}.svg", picture.encode())
    write_atomic(folder / f"{name}.pdf", vl_convert.svg_to_pdf(picture))
    write_atomic(folder / f"{name}.png", vl_convert.svg_to_png(picture, scale=2))
    write_atomic(folder / f"{name}.csv", numbers_of(figure).encode())


def numbers_of(figure: Figure) -> str:
    """What a figure's panels show, as CSV: a column for the panel's title, and those of its rows."""
    rows = [{"panel": panel.title, **row} for panel in figure.shown() for row in figure.drawn(panel)]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(name for row in rows for name in row)), lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({name: str(it).lower() if isinstance(it, bool) else it for name, it in row.items()})
    return text.getvalue()


def replace_listed(folder: Path, captions: Mapping[str, str]) -> None:
    """Write captions.json, and delete the figures that an earlier one lists and this one does not."""
    listed = folder / "captions.json"
    try:
        before = json.loads(listed.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        before = {}
    for name in before if isinstance(before, dict) else ():
        if name not in captions and Path(name).name == name:
            for form in (*FORMS, "csv"):
                (folder / f"{name}.{form}").unlink(missing_ok=True)
    write_atomic(listed, json.dumps(captions, indent=1, ensure_ascii=False).encode())
