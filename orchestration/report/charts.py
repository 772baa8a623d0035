"""What a figure is: panels of rows, each drawn by Vega-Lite, the same on the page and in a paper's files.

A figure's specifications hold no data, no legend and no colour of their own: rows are put in where it is shown, and a
name that begins with MARK stands for what depends on where that is (COLOURS, SHAPES, DASHES: the scales of its series;
INK, SOFT, GRID, PAGE: light or dark). `page.js` puts them in in a browser, `whole` for files.

Source: Satyanarayan et al., Vega-Lite: A Grammar of Interactive Graphics, 2017; https://vega.github.io/vega-lite/docs.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count

from mcit_core.metrics import CATALOGUE
from orchestration.results.estimates import Estimate

#: a specification of Vega-Lite, or a part of one
Spec = Mapping[str, object]
#: one row of what a panel shows
Datum = Mapping[str, str | float | bool | None]

#: begins a name that stands for something else, a letter for private use, so that nobody's setting is called so
MARK = "\ue000"
INK, SOFT, GRID, PAGE = (f"{MARK}{name}" for name in ("ink", "soft", "line", "page"))
COLOURS, SHAPES, DASHES = (f"{MARK}{name}" for name in ("colours", "shapes", "dashes"))
#: of a figure in a file; the page has its own (`page.css`), which follow the reader's screen
LIGHT = {INK: "#1f2328", SOFT: "#5c6570", GRID: "#e1e4e8", PAGE: "#ffffff"}
FONT = 'system-ui, "Segoe UI", "Helvetica Neue", Arial, "DejaVu Sans", sans-serif'
LEGEND: Spec = {
    "title": None,
    "labelColor": INK,
    "labelLimit": 0,
    "labelFontSize": 12,
    "symbolOpacity": 1,
    "orient": "bottom",
}
#: what all charts have in common
CONFIG: Spec = {
    "font": FONT,
    "background": None,
    "view": {"stroke": None},
    "axis": {
        "labelColor": INK,
        "titleColor": SOFT,
        "titleFontWeight": "normal",
        "titleFontSize": 12,
        "labelFontSize": 12,
        "gridColor": GRID,
        "domainColor": SOFT,
        "tickColor": GRID,
        "labelLimit": 0,
        "titleLimit": 0,
    },
    "title": {"color": INK, "anchor": "start", "fontSize": 13, "limit": 0},
    "legend": LEGEND,
    "point": {"opacity": 1},
    "text": {"fontSize": 12},
}
#: pixels of a letter of a label, on the wide side
LETTER = 6.8
#: pixels, in files: of a panel among others, and alone; of figures whose panels stay small; between panels; of an entry
#: of the legend beside its label
WIDTH, ALONE, NARROW, SPACING, ENTRY = 420, 714, 600, 28, 40
#: what an x is drawn as; Vega has no such symbol
CROSSED = "M-.6,-.4L-.4,-.6L0,-.2L.4,-.6L.6,-.4L.2,0L.6,.4L.4,.6L0,.2L-.4,.6L-.6,.4L-.2,0Z"


@dataclass(frozen=True)
class Series:
    """One entry of a legend. colour: of CSS, or a name of LIGHT; dash: lengths in pixels, none for a whole line."""

    label: str
    colour: str
    shape: str = "circle"
    dash: tuple[float, ...] = ()


@dataclass(frozen=True)
class Panel:
    """One chart of a figure; rows that have a `setting` are shown while it is picked. least: pixels that it needs, so
    that nothing is cut; shown: at first, where the figure has a picker; setting: the one it is about."""

    title: str
    spec: Spec
    rows: Sequence[Datum]
    least: float = 260
    shown: bool = True
    setting: str = ""


@dataclass(frozen=True)
class Figure:
    """name: what it shows, in a few words; caption: plain text; key: the column that `series` are of; picker: what
    distinguishes panels that are not all shown ("metric"); picked: settings that are drawn at first, None for all;
    columns: panels beside one another where there is room; most: pixels that a panel takes at most."""

    name: str
    caption: str
    panels: Sequence[Panel]
    series: Sequence[Series] = ()
    key: str = "setting"
    picker: str = ""
    picked: frozenset[str] | None = None
    columns: int = 2
    most: float = 1000

    def drawn(self, panel: Panel) -> list[Datum]:
        """The rows of a panel that are drawn at first."""
        rows = [{name: finite(value) for name, value in row.items()} for row in panel.rows]
        return [row for row in rows if self.picked is None or row.get("setting", "") in {"", *self.picked}]

    def shown(self) -> list[Panel]:
        """The panels that are shown at first."""
        return [
            panel
            for panel in self.panels
            if panel.shown and (self.picked is None or not panel.setting or panel.setting in self.picked)
        ]


def names_of(figures: Iterable[Figure]) -> list[str]:
    """A file's name for each figure, from what it shows; no two are the same."""
    found: list[str] = []
    for one in figures:
        words = re.sub(r"[-−](?=\d)", "minus_", one.name.lower())
        name = re.sub(r"[^a-z0-9]+", "_", words).strip("_")[:60]
        again = (f"{name}_{number}" for number in count(2))
        while name in found:
            name = next(again)
        found.append(name)
    return found


def whole(figure: Figure) -> Spec:
    """The figure as one specification with its data and a legend, on a light ground."""
    parts = []
    found = set()
    for panel in figure.shown():
        rows = figure.drawn(panel)
        found |= {row.get(figure.key) for row in rows}
        wide = max(WIDTH if figure.columns > 1 else ALONE, panel.least) if figure.most > NARROW else panel.least
        parts.append({"title": panel.title, "width": wide, "data": {"values": rows}, **panel.spec})
    series = [one for one in figure.series if one.label in found]
    in_all = min(len(parts), figure.columns) * WIDTH
    beside = max(1, int(in_all / (room_for(one.label for one in series) + ENTRY)))
    config = {**CONFIG, "background": PAGE, "legend": {**LEGEND, "columns": beside}}
    spec = {
        "$schema": "https://vega.github.io/schema/vega-lite/v6.json",
        "config": config,
        "concat": parts,
        "columns": figure.columns,
        "spacing": SPACING,
        "resolve": {"scale": {"color": "shared", "shape": "shared", "strokeDash": "shared"}},
    }
    text = json.dumps(spec, ensure_ascii=False, allow_nan=False)
    resolved: Spec = json.loads(settled(text, series, LIGHT))
    return resolved


def settled(text: str, series: Sequence[Series], theme: Mapping[str, str]) -> str:
    """A specification, as JSON, with its names of series and colours filled in."""
    domain = [one.label for one in series]
    scales: dict[str, Sequence[object]] = {
        COLOURS: [one.colour for one in series],
        SHAPES: [one.shape for one in series],
        DASHES: [one.dash or (1, 0) for one in series],
    }
    for name, values in scales.items():
        text = text.replace(f'"{name}"', json.dumps({"domain": domain, "range": values}, ensure_ascii=False))
    for name, colour in theme.items():
        text = text.replace(f'"{name}"', json.dumps(colour))
    return text


def finite(value: str | float | bool | None) -> str | float | bool | None:
    """None for a number that no chart has a place for."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


# parts of specifications


def title(metric: str) -> str:
    """A metric's name with the direction that is better."""
    better = {"higher": "higher is better", "lower": "lower is better", "": ""}[CATALOGUE[metric].better]
    return f"{CATALOGUE[metric].title} ({better})" if better else CATALOGUE[metric].title


def quantity(name: str, words: str, domain: tuple[float, float] | None = None, **more: object) -> Spec:
    """An axis of numbers; domain: its ends, None for those of the data, without zero."""
    scale: dict[str, object] = {"zero": False} if domain is None else {"domain": domain, "nice": False}
    return {"field": name, "type": "quantitative", "title": words or None, "scale": scale, **more}


def names(name: str, words: str = "", **more: object) -> Spec:
    """An axis of names, in the order of the rows."""
    return {"field": name, "type": "ordinal", "sort": None, "title": words or None, **more}


def colour(key: str) -> Spec:
    """By the figure's series."""
    return {"field": key, "type": "nominal", "scale": COLOURS}


def shape(key: str) -> Spec:
    return {"field": key, "type": "nominal", "scale": SHAPES}


def dash(key: str) -> Spec:
    return {"field": key, "type": "nominal", "scale": DASHES}


def told(**fields: str) -> list[Spec]:
    """What hovering says: column="words" or column="words|format", `__` in a column's name for a blank."""
    found: list[Spec] = []
    for name, words in fields.items():
        label, _, form = words.partition("|")
        found.append({"field": name, "title": label, **({"format": form, "type": "quantitative"} if form else {})})
    return found


def only(kind: str) -> list[Spec]:
    """The transform that keeps rows of a kind."""
    return [{"filter": f"datum.kind === '{kind}'"}]


def layers(*marks: Spec, height: object, zoom: Sequence[str] = (), left: float = 0, right: float = 0) -> Spec:
    """Marks on one another; zoom: the axes on which the reader may zoom, whose ends are those of what is drawn at
    first; left, right: pixels by which labels reach beyond the chart there."""
    about = {"zoom": list(zoom), "left": math.ceil(left), "right": math.ceil(right)}
    return {"layer": marks, "height": height, "usermeta": about}


def with_intervals(rows: Iterable[Datum], mark: Spec) -> list[Spec]:
    """The mark of those that have a `low`, where any has one: a scale of nothing is none."""
    shown = {**mark, "transform": [{"filter": "isValid(datum.low)"}]}
    return [shown] if any(row.get("low") is not None for row in rows) else []


def interval_ends(found: Estimate) -> dict[str, float | None]:
    """The columns `low` and `high` of a row, per cent; None where there is no interval."""
    low, high = found.interval or (None, None)
    return {"low": None if low is None else 100 * low, "high": None if high is None else 100 * high}


def grouped_bars(row: str, key: str, length: str, step: float) -> Spec:
    """Bars of a column `length`, those of one `row` beneath one another, a colour each `key`; step: pixels of a bar."""
    return layers(
        {
            "mark": {"type": "bar"},
            "encoding": {
                "x": {"field": length, "type": "quantitative", "title": length},
                "y": names(row, axis={"grid": False}),
                "yOffset": {"field": key, "type": "nominal", "sort": None},
                "color": colour(key),
                "tooltip": told(**{row: row, key: key, length: f"{length}|.1f"}),
            },
        },
        height={"step": step, "for": "offset"},
    )


#: the data of a mark that is there once, whatever the rows
ONCE: Spec = {"values": [{}]}


def room_for(labels: Iterable[str]) -> float:
    """The pixels that the longest label takes."""
    return LETTER * max(map(len, labels), default=0)


def limits(centres: Sequence[float], found: Iterable[Estimate]) -> tuple[tuple[float, float] | None, bool]:
    """Ends of a scale for means and trials (`centres`, per cent) whose intervals may stretch it threefold, and whether
    one is cut there."""
    ends = [100 * (e.mean + sign * (e.half_width or 0.0)) for e in found if e.mean is not None for sign in (-1, 1)]
    if not centres:
        return None, False
    low, high = min(centres), max(centres)
    room = max(high - low, 4.0)
    bottom = max(min([low, *ends]), low - room) - 0.08 * room
    top = min(max([high, *ends]), high + room) + 0.08 * room
    return (bottom, top), any(end < bottom or end > top for end in ends)


def heat_map(
    rows: Sequence[str],
    columns: Sequence[str],
    values: Sequence[Sequence[float | None]],
    most: float,
    *,
    words: tuple[str, str] = ("", ""),
    form: str = ".0f",
    signed: bool = False,
    low: float = 0,
    framed: Collection[tuple[str, str]] = (),
    title: str = "",
    shown: bool = True,
    setting: str = "",
    written: bool = True,
) -> Panel:
    """Of [rows, columns] from `low`, or where `signed` from -most, to `most`, where `written` each number in its cell;
    words: what rows and columns are; framed: cells with a frame."""
    data: list[Datum] = [
        {"row": row, "column": column, "value": value, "framed": (row, column) in framed}
        for row, line in zip(rows, values, strict=True)
        for column, value in zip(columns, line, strict=True)
        if value is not None and math.isfinite(value)
    ]
    turned = {"labelAngle": -35} if written else {"labelAngle": 0, "labelOverlap": True, "labelSeparation": 6}
    place = {
        "x": names("column", words[1], axis={"orient": "top", **turned, "ticks": False, "domain": False}),
        "y": names("row", words[0], axis={"ticks": False, "domain": False}),
    }
    place = {
        axis: {**dict(part), "scale": {"domain": list(labels)}}
        for (axis, part), labels in zip(place.items(), (columns, rows), strict=True)
    }
    tooltip = told(row=words[0] or "row", column=words[1] or "column", value=f"value|{form}")
    shade = {
        "field": "value",
        "type": "quantitative",
        "legend": None,
        "scale": {
            "scheme": "purpleorange" if signed else "blues",
            "domain": [-most if signed else low, most],
            "reverse": signed,
            "clamp": True,
        },
    }
    cells: Spec = {"mark": {"type": "rect"}, "encoding": {**place, "color": shade, "tooltip": tooltip}}
    numbers: Spec = {
        "mark": {"type": "text", "fontSize": 11},
        "encoding": {
            **place,
            "tooltip": tooltip,
            "text": {"field": "value", "type": "quantitative", "format": form},
            "color": {
                "condition": {
                    "test": f"abs(datum.value) > {0.6 * most if signed else low + 0.6 * (most - low)}",
                    "value": "white",
                },
                "value": "#1f2328",
            },
        },
    }
    frames: Spec = {
        "transform": [{"filter": "datum.framed"}],
        "mark": {"type": "rect", "fillOpacity": 0, "stroke": "#D55E00", "strokeWidth": 1.6, "tooltip": False},
        "encoding": place,
    }
    longest = max((len(f"{row['value']:{form}}") for row in data), default=1)
    cell = max(34.0, LETTER * 1.1 * longest + 8) if written else 10
    # labels lean, by the cosine of their angle: those near the right end reach out there
    out = [0.82 * LETTER * len(label) - cell * (len(columns) - place - 0.5) for place, label in enumerate(columns)]
    right = max(0.0, *out) if written and columns else 0
    marks = [cells, *([numbers] if written else []), *([frames] if framed else [])]
    spec = layers(*marks, height={"step": 24}, right=right)
    least = room_for(rows) + cell * len(columns) + 60 + right
    return Panel(title, spec, data, least, shown=shown, setting=setting)
