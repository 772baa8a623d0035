"""The whole page: sections put into the templates, with the charting library, so that it loads nothing else."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from functools import cache
from importlib.resources import files

import vl_convert
from jinja2 import Environment, PackageLoader
from markupsafe import Markup

from orchestration.report.blocks import figures_of
from orchestration.report.charts import (
    ALONE,
    COLOURS,
    CONFIG,
    DASHES,
    ENTRY,
    LEGEND,
    LETTER,
    LIGHT,
    MARK,
    NARROW,
    PAGE,
    SHAPES,
    SPACING,
    WIDTH,
    Datum,
    Figure,
    finite,
    names_of,
)
from orchestration.report.context import Context
from orchestration.report.sections import sections

#: significant digits of the page's data; files have all
DIGITS = 6
#: what `page.js` has of `charts`; on the page a colour's name is a variable of the style sheet
LOOK = {
    "light": LIGHT,
    "page": {name: f"var(--{name.removeprefix(MARK)})" for name in LIGHT},
    "ground": PAGE,
    "colours": COLOURS,
    "shapes": SHAPES,
    "dashes": DASHES,
    "config": CONFIG,
    "legend": LEGEND,
    "letter": LETTER,
    "width": WIDTH,
    "alone": ALONE,
    "narrow": NARROW,
    "spacing": SPACING,
    "entry": ENTRY,
}


def render(context: Context) -> str:
    """The report as one HTML document that loads nothing else."""
    built = sections(context)
    figures = [figure for _, blocks in built for figure in figures_of(blocks)]
    values = {
        "name": str(context.results.sweep.get("name", context.results.folder.name)),
        "sections": built,
        "slugs": dict(zip(map(id, figures), names_of(figures), strict=True)),
        "look": LOOK,
        "css": _text("page.css"),
        "script": _text("page.js"),
        "library": _library(),
    }
    return _environment().get_template("page.html").render(values)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("orchestration.report"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["kind"] = lambda block: type(block).__name__
    environment.filters["ident"] = id
    environment.filters["figure_json"] = _json
    return environment


@cache
def _library() -> Markup:
    """Vega, Vega-Lite and Vega-Embed as one script."""
    return Markup(vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;"))


def _text(name: str) -> Markup:
    """A file of ours beside the template."""
    return Markup((files("orchestration.report") / "templates" / name).read_text(encoding="utf-8"))


def _json(figure: Figure) -> Markup:
    """A figure for `page.js`; panels of one specification share it."""
    specs: list[str] = []
    panels = []
    for panel in figure.panels:
        spec = json.dumps(panel.spec, ensure_ascii=False, allow_nan=False)
        specs += [] if spec in specs else [spec]
        panels.append(
            {
                "title": panel.title,
                "spec": specs.index(spec),
                **_columns(panel.rows),
                "least": math.ceil(panel.least),
                "shown": panel.shown,
                "setting": panel.setting,
            }
        )
    found = {
        "name": figure.name,
        "key": figure.key,
        "picker": figure.picker,
        "picked": None if figure.picked is None else sorted(figure.picked),
        "columns": figure.columns,
        "most": figure.most,
        "series": [asdict(one) for one in figure.series],
        "specs": [json.loads(spec) for spec in specs],
        "panels": panels,
    }
    text = json.dumps(found, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return Markup(text.replace("<", "\\u003c").replace("&", "\\u0026"))


def _columns(rows: Sequence[Datum]) -> dict[str, object]:
    """Rows as their columns' names and lists of values, in half the space; numbers have the digits that can be seen."""
    names = list(dict.fromkeys(name for row in rows for name in row))

    def short(value: object) -> object:
        return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value

    return {"columns": names, "rows": [[short(finite(row.get(name))) for name in names] for row in rows]}
