"""Figures as files for a paper: SVG, PDF and PNG, and the numbers that each shows as CSV."""

from __future__ import annotations

import csv
import html
import io
import json
import math
import re
from collections.abc import Iterator, Mapping
from itertools import count
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.container import BarContainer, ErrorbarContainer
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator

from mcit_core.folders import write_atomic
from orchestration.report.drawing import Drawn

FORMS = ("svg", "pdf", "png")
COLUMNS = ("panel", "series", "x", "x_error", "y", "y_error", "value")
#: text stays text, in fonts that PDF readers take
LOOK = {"svg.fonttype": "none", "pdf.fonttype": 42}
Row = tuple[object, ...]


def write_figure(folder: Path, name: str, figure: Figure) -> None:
    """<name>.svg, .pdf, .png and .csv, each whole or not at all."""
    for form in FORMS:
        sink = io.BytesIO()
        dates = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": {}}[form]
        figure.savefig(sink, format=form, dpi=200, metadata=dates)
        write_atomic(folder / f"{name}.{form}", sink.getvalue())
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(COLUMNS)
    lines.writerows(numbers_of(figure))
    write_atomic(folder / f"{name}.csv", text.getvalue().encode())


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


def names_of(drawn: list[Drawn]) -> list[str]:
    """A file's name for each figure, from what it shows; no two are the same."""
    found: list[str] = []
    for one in drawn:
        words = re.sub(r"[-−](?=\d)", "minus_", one.alt.lower())
        name = re.sub(r"[^a-z0-9]+", "_", words).strip("_")[:60]
        again = (f"{name}_{number}" for number in count(2))
        while name in found:
            name = next(again)
        found.append(name)
    return found


def words(caption: str) -> str:
    """A caption as plain text."""
    return " ".join(html.unescape(re.sub(r"<[^>]*>", "", caption)).split())


def numbers_of(figure: Figure) -> list[Row]:
    """What a figure's panels show, row by row of COLUMNS; half widths of intervals as errors, empty where there is no
    interval. A line across the panel has no x."""
    return [row for number, panel in enumerate(figure.axes, start=1) for row in _panel(panel, number)]


def _panel(panel: Axes, number: int) -> Iterator[Row]:
    title = panel.get_title(loc="left") or panel.get_title() or panel.get_ylabel() or panel.get_xlabel() or str(number)
    x_names, y_names = _names(panel, "x"), _names(panel, "y")
    inside: set[int] = set()
    for container in panel.containers:
        label = _series(container.get_label())
        if isinstance(container, ErrorbarContainer):
            line, caps, bars = container.lines
            inside |= {id(part) for part in (line, *caps)}
            if line is None:
                continue
            errors: dict[str, list[float | str]] = {name: [""] * np.size(line.get_xdata()) for name in "xy"}
            sides = [name for name, there in (("x", container.has_xerr), ("y", container.has_yerr)) if there]
            for name, bar in zip(sides, bars, strict=True):
                axis = "xy".index(name)
                widths = [float(np.ptp(np.asarray(segment)[:, axis])) / 2 for segment in bar.get_segments()]
                errors[name] = [width or "" for width in widths]
            points = zip(*(np.atleast_1d(np.asarray(data, float)) for data in line.get_data()), strict=True)
            for i, (x, y) in enumerate(points):
                yield title, label, _at(x_names, x), errors["x"][i], _at(y_names, y), errors["y"][i], ""
        elif isinstance(container, BarContainer):
            for patch in container.patches:
                x, y, width, height = (
                    float(np.round(size, 6)) for size in (*patch.get_xy(), patch.get_width(), patch.get_height())
                )
                if container.orientation == "horizontal":
                    yield title, label, width, "", _at(y_names, y + height / 2), "", ""
                else:
                    yield title, label, _at(x_names, x + width / 2), "", height, "", ""
    for artist in panel.lines:
        if id(artist) in inside or not isinstance(artist, Line2D):
            continue
        if artist.get_transform() != panel.transData:  # a line across the panel
            level = float(np.ravel(artist.get_ydata())[0])
            if _series(artist.get_label()) and artist.get_transform() == panel.get_yaxis_transform(which="grid"):
                yield title, _series(artist.get_label()), "", "", level, "", ""
            continue
        for x, y in zip(*(np.atleast_1d(np.asarray(data, float)) for data in artist.get_data()), strict=True):
            yield title, _series(artist.get_label()), _at(x_names, x), "", _at(y_names, y), "", ""
    for image in panel.images:
        grid: np.ndarray = np.ma.filled(np.ma.asarray(image.get_array(), float), np.nan)
        for (row, column), value in np.ndenumerate(grid):
            if np.isfinite(value):
                yield title, "", _at(x_names, column), "", _at(y_names, row), "", float(value)
    for dots in panel.collections:
        if dots.get_offset_transform() == panel.transData:
            for x, y in np.atleast_2d(np.asarray(dots.get_offsets(), float)):
                yield title, _series(dots.get_label()), _at(x_names, x), "", _at(y_names, y), "", ""
        elif isinstance(dots, LineCollection) and _series(dots.get_label()):
            for ends in dots.get_segments():
                x, y = np.asarray(ends, float).mean(0)
                yield title, _series(dots.get_label()), _at(x_names, x), "", _at(y_names, y), "", ""


def _series(label: object) -> str:
    return "" if str(label).startswith("_") else str(label)


def _names(panel: Axes, axis: str) -> dict[float, str]:
    """Place -> the words that stand there, where the ticks were named one by one."""
    of = panel.xaxis if axis == "x" else panel.yaxis
    if not isinstance(of.get_major_locator(), FixedLocator):
        return {}
    places = [float(place) for place in of.get_ticklocs()]
    texts = of.get_major_formatter().format_ticks(places)  # also where the labels are hidden
    return {place: text for place, text in zip(places, texts, strict=False) if text}


def _at(names: dict[float, str], place: float) -> str | float:
    """The name of a place, or of the one beside which it was put to be seen."""
    near = min(names, key=lambda other: abs(other - place), default=math.inf)
    return names[near] if abs(near - place) < 0.5 else place
