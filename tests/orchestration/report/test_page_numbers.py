"""Every number of the page, read from the page itself, worked out again from accuracy.parquet by code that shares
nothing with the project's (`tests.orchestration.results.independent`)."""

from __future__ import annotations

import json
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orchestration.report import write_report
from orchestration.report.context import Context
from orchestration.report.page import DIGITS
from orchestration.results.reading import Results, read_results
from tests.orchestration.results.independent import HEADLINE, Key, Run, holm, mean_and_half, p_of, place
from tests.orchestration.results.test_page_numbers import WITH_CELLS, both, independent_places, key_of, orders_run
from tests.support.large_runs import large_run
from tests.support.places import ROOT

#: the page rounds
NEAR = {"rel": 10.0 ** (1 - DIGITS), "abs": 1e-6}


class Page(HTMLParser):
    """figures: name -> its panels' titles with rows; tables: the rows of each, of cells' sorting values by column."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.figures: dict[str, list[tuple[str, list[dict[str, Any]]]]] = {}
        self.tables: list[tuple[list[str], dict[str, list[float | None]]]] = []
        self._figure = self._script = self._head = False
        self._row: list[float | None] | None = None
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self._figure |= tag == "figure"
        self._script = tag == "script" and self._figure
        if tag == "table":
            self.tables.append(([], {}))
        self._head = tag == "th" and found.get("scope") == "col"
        if tag == "tr" and "data-setting" in found:
            self._row = self.tables[-1][1].setdefault(str(found["data-setting"]), [])
        elif tag == "tr":
            self._row = None
        if tag in ("td", "th") and not self._head and self._row is not None:
            value = found.get("data-value")
            self._row.append(None if value is None else float(value))

    def handle_data(self, data: str) -> None:
        if self._head and data.strip():
            self.tables[-1][0].append(data.strip())
        if self._script:
            figure = json.loads(data)
            self.figures[figure["name"]] = [
                (panel["title"], [dict(zip(panel["columns"], row, strict=True)) for row in panel["rows"]])
                for panel in figure["panels"]
            ]
            self._script = False

    def handle_endtag(self, tag: str) -> None:
        self._figure &= tag != "figure"
        self._head = False


Shown = tuple[Page, Run, Results, dict[str, Key]]


@pytest.fixture(scope="module", params=[*WITH_CELLS, "orders"])
def shown(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Shown:
    folder = tmp_path_factory.mktemp("page") / "run"
    if request.param == "orders":
        run, results = orders_run(folder)
    else:
        run, results = both(request.param)
        shutil.copytree(ROOT / "docs" / "data" / request.param, folder)
    write_report(folder)
    context = Context.of(read_results(folder))
    keys = {context.label(setting): key_of(run, setting) for setting in context.settings}
    return Page((folder / "report.html").read_text()), run, results, keys


def percent(values: Any) -> Any:
    return None if values is None else [100 * value for value in values]


def test_the_table_of_settings(shown: Shown) -> None:
    page, run, _, keys = shown
    head, rows = next(table for table in page.tables if table[0][:2] == ["setting", "n"])
    columns = {"average accuracy ↑": "average_accuracy", "learning accuracy ↑": "learning_accuracy"}
    columns |= {"forgetting ↓": "forgetting", "forward transfer ↑": "forward_transfer"}
    seen = 0
    for label, values in rows.items():
        if not run.is_sequence({"method": keys[label][0]}):
            continue
        for title, metric in columns.items():
            if title in head:
                wanted = list(run.by_seed(keys[label], metric).values())
                assert values[head.index(title)] == pytest.approx(np.mean(wanted), abs=1e-9), (label, title)
                seen += 1
    assert seen >= 6


def test_the_forest_of_differences(shown: Shown) -> None:
    page, run, _, keys = shown
    panels = page.figures["Differences from sequential"]
    tested = {(metric, key): values for metric in HEADLINE for key, values in run.against_sequential(metric).items()}
    numeric = [axis for axis in run.axes if len({row[axis] for row in run.trials if row[axis] is not None}) > 1]
    p_values = [p_of(values) for values in tested.values() if len(values) > 2 and np.std(values)]
    p_values += [p_of(values) for axis in numeric for m in HEADLINE if len(values := run.along(axis, m)) > 2]
    corrected = dict(zip(p_values, holm(p_values), strict=True))
    assert panels
    for title, rows in panels:
        metric = next(m for m in HEADLINE if title.startswith(m.replace("_", " ")))
        assert rows
        for row in rows:
            values = tested[metric, keys[row["setting"]]]
            mean, half = mean_and_half(values)
            assert row["difference"] == pytest.approx(100 * mean, **NEAR)
            assert (row["low"], row["high"]) == pytest.approx((100 * (mean - half), 100 * (mean + half)), **NEAR)
            assert row["seeds"] == len(values)
            assert row["p_holm"] == pytest.approx(corrected[p_of(values)], **NEAR)


def test_accuracy_against_forgetting(shown: Shown) -> None:
    page, run, _, keys = shown
    ((_, rows),) = page.figures["Average accuracy against forgetting"]
    points = {row["setting"]: row for row in rows if row["kind"] == "setting"}
    assert points
    for label, row in points.items():
        for name, metric in (("accuracy", "average_accuracy"), ("forgetting", "forgetting")):
            wanted = np.mean(list(run.by_seed(keys[label], metric).values()))
            assert row[name] == pytest.approx(100 * wanted, **NEAR)
        region = [other for other in rows if other["kind"] == "region" and other["setting"] == label]
        if region:  # its corners lie around the mean
            assert np.mean([corner["accuracy"] for corner in region]) == pytest.approx(row["accuracy"], abs=1e-3)
    line = [(row["forgetting"], row["accuracy"]) for row in rows if row["kind"] == "front"]
    studied = [row for label, row in points.items() if keys[label] in run.studied()]
    beaten = [
        any(o["forgetting"] <= p["forgetting"] and o["accuracy"] >= p["accuracy"] and o != p for o in studied)
        for p in studied
    ]
    best = [(p["forgetting"], p["accuracy"]) for p, lost in zip(studied, beaten, strict=True) if not lost]
    assert sorted(line) == sorted(set(best))


def test_along_the_axes(shown: Shown) -> None:
    page, run, _, _ = shown
    for axis in run.axes:
        figure = page.figures.get(f"Headline metrics along {axis}")
        assert figure is not None
        column = run.columns.index(axis)
        for title, rows in figure:
            metric = title.split(" (")[0].replace(" ", "_")
            if metric not in (*HEADLINE, "learning_accuracy"):
                continue
            for row in rows:
                if row["kind"] != "mean":
                    continue
                here = [k for k in run.studied() if f"{k[column]:g}" == row["x"]]
                seeds = run.by_seed(here[0], metric)
                means = [np.mean([run.by_seed(k, metric)[seed] for k in here]) for seed in seeds]
                mean, half = mean_and_half(means)
                assert (row["y"], row["low"]) == pytest.approx((100 * mean, 100 * (mean - half)), **NEAR)


def test_matrices_and_curves(shown: Shown) -> None:
    page, run, results, keys = shown
    seen = 0
    for title, rows in page.figures["Accuracy matrices"]:
        label = next(label for label in sorted(keys, key=len, reverse=True) if title.startswith(label))
        number = int(title.split("order ")[1].split()[0]) if "order " in title else 1
        trials = [row for row in run.settings[keys[label]] if row["order"] == results.orders[number - 1]]
        for cell in rows:
            stage = -1 if cell["row"] == "untouched" else int(cell["row"].split()[0]) - 1
            values = [run.cells[row["trial"], stage, cell["column"]] for row in trials]
            assert cell["value"] == pytest.approx(100 * np.mean(values), **NEAR)
            assert cell["framed"] == (cell["row"].split()[-1] == cell["column"])
            seen += 1
    assert seen > 20
    curves = {name: panels for name, panels in page.figures.items() if name.startswith("Accuracy of each task over")}
    assert len(curves) == len(results.orders)
    for name, panels in curves.items():
        for _, rows in panels:
            for point in rows:
                trials = [r for r in run.settings[keys[point["setting"]]] if r["order"] == name.split(", ")[1]]
                values = [run.cells[row["trial"], point["stage"] - 1, point["task"]] for row in trials]
                assert point["accuracy"] == pytest.approx(100 * np.mean(values), **NEAR)


def test_ranks(shown: Shown) -> None:
    page, run, _, keys = shown
    for title, rows in page.figures.get("Ranks of settings", []):
        metric = title.replace(" ", "_")
        if metric not in HEADLINE:  # the cells of validation rows are no test cells
            continue
        means = [float(np.mean(list(run.by_seed(keys[row["setting"]], metric).values()))) for row in rows]
        assert [row["mean"] for row in rows] == pytest.approx(percent(means), **NEAR)
        assert [row["rank"] for row in rows] == pytest.approx(place(means, metric != "forgetting"))
        assert all(row["low"] <= row["rank"] <= row["high"] for row in rows)


def test_orders(shown: Shown) -> None:
    page, run, results, keys = shown
    if len(results.orders) < 2:
        return
    ((_, rows),) = page.figures["Average accuracy by order"]
    assert rows
    for row in rows:
        order = results.orders[int(row["order"].split()[1]) - 1]
        trials = [one for one in run.settings[keys[row["setting"]]] if one["order"] == order]
        mean, half = mean_and_half([run.values[one["trial"]]["average_accuracy"] for one in trials])  # type: ignore[misc]
        assert (row["accuracy"], row["low"]) == pytest.approx((100 * mean, 100 * (mean - half)), **NEAR)
    words = {"final accuracy": "final", "accuracy right after its own stage": "learning", "forgetting": "forgetting"}
    for title, found in page.figures["Effect of a task's place in the order"]:
        label, measure = title.split(": ")
        wanted = independent_places(run, run.settings[keys[label]], words[measure])
        for row in found:
            mean, half = mean_and_half(wanted[int(row["place"]) - 1])
            assert (row["effect"], row["high"]) == pytest.approx((100 * mean, 100 * (mean + half)), **NEAR)


#: figures whose numbers are not made of cells: of stages.parquet and steps.parquet, or tested where they are worked out
ELSEWHERE = {
    "Seconds per trial",
    "Effect of the task before",  # tests/orchestration/results/test_page_numbers.py
    "Importance of the axes",  # the same
    "Pairs of axes",
    "Parallel coordinates",
}


def test_no_figure_is_left_out(shown: Shown) -> None:
    page = shown[0]
    covered = {"Differences from sequential", "Average accuracy against forgetting", "Accuracy matrices"}
    covered |= {"Ranks of settings", "Average accuracy by order", "Effect of a task's place in the order"}
    left = {name for name in page.figures if not name.startswith(("Headline metrics", "Accuracy of each task over"))}
    assert left <= covered | ELSEWHERE


def test_pairs_and_parallel_coordinates(tmp_path: Path) -> None:
    run = large_run(tmp_path / "run", 6)
    write_report(run)
    page, mine = Page((run / "report.html").read_text()), Run(run)
    key = {(k[1], k[2]): k for k in mine.studied()}
    for title, rows in page.figures["Pairs of axes"]:
        metric = title.split(":")[0].replace(" ", "_")
        for cell in rows if metric in ("average_accuracy", "forgetting") else ():
            wanted = list(mine.by_seed(key[int(cell["row"]), float(cell["column"])], metric).values())
            assert cell["value"] == pytest.approx(100 * np.mean(wanted), **NEAR)
    ((_, rows),) = page.figures["Parallel coordinates"]
    means = {k: float(np.mean(list(mine.by_seed(key[k], "average_accuracy").values()))) for k in key}
    low, high = min(means.values()), max(means.values())
    stops = [row for row in rows if row["stop"] == "average accuracy"]
    assert len(stops) == 6
    for row in stops:
        size, energy = row["setting"].replace(",", "").split()[1::2]
        mean = means[int(size), float(energy)]
        assert row["value"] == f"{100 * mean:.1f}"
        assert row["place"] == pytest.approx((mean - low) / (high - low), **NEAR)
