"""The report in a real browser: nothing is loaded, everything is drawn, no label is cut or lies on another."""

from __future__ import annotations

import json
import math
import shutil
import tempfile
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from orchestration.report import write_report
from orchestration.report.blocks import figures_of
from orchestration.report.charts import whole
from orchestration.report.context import Context
from orchestration.report.sections import sections
from orchestration.results.reading import read_results
from tests.support.large_runs import large_run

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
BROWSER = next(filter(None, map(shutil.which, BROWSERS)), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason=f"none of {', '.join(BROWSERS)} is installed")

#: settings, seeds, orders and state of the runs that are looked at
RUNS = {
    "few": (3, 3, 1, "finished"),
    "some": (30, 3, 2, "failed"),
    "many": (300, 1, 1, "half"),
}
SIZES = [(1400, "light"), (1400, "dark"), (420, "light"), (420, "dark")]

#: in the page: texts of one chart that lie on one another, as they stand there, turned ones too (separating axes), and
#: those that reach beyond their chart
TEXTS = """() => {
  const corners = (text) => {
    const box = text.getBBox(), place = text.getScreenCTM();
    const inset = 0.18 * box.height; // letters do not fill their line
    return [[box.x, box.y + inset], [box.x + box.width, box.y + inset],
            [box.x + box.width, box.y + box.height - inset], [box.x, box.y + box.height - inset]]
      .map(([x, y]) => new DOMPoint(x, y).matrixTransform(place));
  };
  const apart = (a, b) => [a, b].some((shape) => shape.some((p, i) => {
    const q = shape[(i + 1) % 4], [nx, ny] = [q.y - p.y, p.x - q.x];
    const along = (points) => points.map((point) => point.x * nx + point.y * ny);
    const [m, n] = [along(a), along(b)];
    const slack = 0.5 * Math.hypot(nx, ny);
    return Math.max(...m) <= Math.min(...n) + slack || Math.max(...n) <= Math.min(...m) + slack;
  }));
  const found = [];
  for (const svg of document.querySelectorAll("figure.chart svg.marks")) {
    const name = svg.closest("figure").id, frame = svg.getBoundingClientRect();
    const texts = [...svg.querySelectorAll("text")].filter(
      (text) => text.textContent && text.getAttribute("opacity") !== "0" && text.getBBox().width);
    const shapes = texts.map(corners);
    shapes.forEach((shape, i) => {
      const words = texts[i].textContent;
      if (shape.some((point) => point.x < frame.left - 1 || point.x > frame.right + 1
          || point.y < frame.top - 1 || point.y > frame.bottom + 1)) found.push(`${name}: ${words} is cut`);
      for (let j = i + 1; j < shapes.length; j++)
        if (!apart(shape, shapes[j])) found.push(`${name}: ${words} lies on ${texts[j].textContent}`);
    });
  }
  return found.slice(0, 20);
}"""
#: in the page: elements whose text is cut where nobody can scroll to it
CUT = """() => [...document.querySelectorAll("h1, h2, h3, h4, p, dt, dd, figcaption, button, th, td, summary")]
  .filter((one) => one.offsetParent && one.scrollWidth > one.clientWidth + 1
    && !["inline", "inline-block"].includes(getComputedStyle(one).display))
  .map((one) => `${one.tagName}: ${one.textContent.slice(0, 60)}`)"""


#: in the page: points of the trade-off that lie beyond its chart
OUTSIDE = """() => [...document.querySelectorAll("#average_accuracy_against_forgetting .mark-symbol path")]
  .filter((one) => {
    const box = one.getBoundingClientRect(), all = one.closest("svg").getBoundingClientRect();
    return box.left < all.left || box.right > all.right || box.top < all.top || box.bottom > all.bottom;
  }).length"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("browser")
    found = {name: large_run(folder / name, *how) for name, how in RUNS.items()}
    for run in found.values():
        write_report(run)
    return found


@pytest.fixture(scope="module")
def browser() -> Iterator[playwright.Browser]:
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield opened
        opened.close()


class Opened:
    """A report in the browser, drawn; `said`: what its console says, `asked`: what it asks for besides itself."""

    def __init__(self, browser: playwright.Browser, run: Path, width: int, scheme: str) -> None:
        self.page = browser.new_page(
            viewport={"width": width, "height": 900}, color_scheme=scheme, accept_downloads=True
        )
        self.said: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto((run / "report.html").as_uri())
        self.drawn()

    def drawn(self) -> None:
        self.page.wait_for_selector("html[data-drawn]", state="attached", timeout=60_000)

    def figure(self, name: str) -> playwright.Locator:
        return self.page.locator(f"figure#{name}")


@pytest.fixture
def few(browser: playwright.Browser, runs: dict[str, Path]) -> Iterator[Opened]:
    opened = Opened(browser, runs["few"], 1400, "light")
    yield opened
    opened.page.close()
    assert not opened.said


@pytest.fixture
def many(browser: playwright.Browser, runs: dict[str, Path]) -> Iterator[Opened]:
    opened = Opened(browser, runs["many"], 1400, "light")
    yield opened
    opened.page.close()
    assert not opened.said


@pytest.mark.parametrize("name", RUNS)
@pytest.mark.parametrize(("width", "scheme"), SIZES)
def test_everything_is_there_and_can_be_read(
    name: str, width: int, scheme: str, browser: playwright.Browser, runs: dict[str, Path]
) -> None:
    opened = Opened(browser, runs[name], width, scheme)
    page = opened.page
    assert opened.said == []
    assert [url for url in opened.asked if not url.startswith(("file:", "data:"))] == []
    wanted = [figure for _, blocks in sections(Context.of(read_results(runs[name]))) for figure in figures_of(blocks)]
    assert page.locator("figure.chart").count() == len(wanted)
    for place, figure in enumerate(wanted):
        charts = page.locator("figure.chart").nth(place).locator("svg.marks")
        assert charts.count() == len(figure.shown()), figure.name
        for chart in range(charts.count()):
            box = charts.nth(chart).bounding_box()
            assert box is not None
            assert box["width"] >= 150, figure.name
            assert box["height"] >= 40, figure.name
            assert charts.nth(chart).locator(".mark-rect path, .mark-symbol path, .mark-rule line").count(), figure.name
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate(TEXTS) == []
    assert page.evaluate(CUT) == []
    page.close()


def test_a_table_sorts_and_filters(few: Opened) -> None:
    table = few.page.locator("section", has_text="Settings and metrics").locator("table").first
    column = table.locator("thead th", has_text="forgetting").first
    place = column.evaluate("(head) => head.cellIndex")
    cells = table.locator(f"tbody tr:not(.reference) > :nth-child({place + 1})")

    def values() -> list[float]:
        return [float(cell.get_attribute("data-value") or "nan") for cell in cells.all()]

    before = values()
    column.click()
    assert values() == sorted(before, reverse=True)
    column.click()
    assert values() == sorted(before)
    assert table.locator("tbody tr").last.get_attribute("class") == "reference"
    table.locator("xpath=../preceding-sibling::div[1]//input").first.fill("0.99")
    shown = table.locator("tbody tr:visible")
    assert [row.get_attribute("data-setting") for row in shown.all()] == ["size 10, task_energy 0.99"]


def test_a_name_leads_to_its_trials(few: Opened) -> None:
    few.page.locator("tbody a", has_text="task_energy 0.9").first.click()
    rows = few.page.locator("#trials tbody tr:visible")
    setting = rows.first.get_attribute("data-setting")
    assert setting is not None
    assert {row.get_attribute("data-setting") for row in rows.all()} == {setting}
    assert rows.count() == 3


def test_hovering_tells_the_values(few: Opened) -> None:
    matrix = few.figure("accuracy_matrices")
    matrix.scroll_into_view_if_needed()
    matrix.locator(".mark-rect path").first.hover(force=True)  # the number lies on it
    tip = few.page.locator("#vg-tooltip-element.visible")
    tip.wait_for(timeout=5000)
    assert "untouched" in tip.inner_text()
    assert "charts" in tip.inner_text()
    points = few.figure("differences_from_sequential").locator(".mark-symbol path")
    points.first.scroll_into_view_if_needed()
    points.first.hover()
    few.page.wait_for_function("document.querySelector('#vg-tooltip-element').innerText.includes('p (Holm)')")


def test_an_entry_of_the_legend_hides_its_series(few: Opened) -> None:
    figure = few.figure("average_accuracy_against_forgetting")
    before = figure.locator(".mark-symbol path").count()
    entry = figure.locator(".legend button", has_text="sequential")
    entry.click()
    few.page.wait_for_function(
        "(count) => document.querySelectorAll('#average_accuracy_against_forgetting .mark-symbol path').length < count",
        arg=before,
    )
    assert entry.get_attribute("aria-pressed") == "false"
    entry.click()
    few.page.wait_for_function(
        "(n) => document.querySelectorAll('#average_accuracy_against_forgetting .mark-symbol path').length === n",
        arg=before,
    )


def test_the_metric_is_picked(few: Opened) -> None:
    figure = few.figure("headline_metrics_along_pool_size")
    figure.locator("select").select_option(label="learning accuracy (higher is better)")
    few.page.wait_for_function("document.querySelectorAll('#headline_metrics_along_pool_size svg.marks').length === 1")
    assert figure.locator("h4").all_inner_texts() == ["learning accuracy (higher is better)"]


def test_wheel_with_shift_zooms_and_alone_moves_the_page(few: Opened) -> None:
    chart = few.figure("average_accuracy_against_forgetting").locator("svg.marks")
    chart.scroll_into_view_if_needed()
    texts = "document.querySelectorAll('#average_accuracy_against_forgetting svg.marks text')"
    labels = f"[...{texts}].map((text) => text.textContent)"
    before = few.page.evaluate(labels)
    chart.hover()
    few.page.mouse.wheel(0, 120)
    few.page.wait_for_timeout(200)
    assert few.page.evaluate(labels) == before
    chart.scroll_into_view_if_needed()
    chart.hover()
    few.page.keyboard.down("Shift")
    few.page.mouse.wheel(0, -400)
    few.page.keyboard.up("Shift")
    few.page.wait_for_function(f"(before) => JSON.stringify({labels}) !== JSON.stringify(before)", arg=before)


def test_settings_that_are_ticked_are_drawn(many: Opened) -> None:
    page = many.page
    table = page.locator("section", has_text="Settings and metrics").locator("table").first
    assert table.locator("tbody tr:visible").count() < 40  # of 300
    bar = table.locator("xpath=../preceding-sibling::div[1]")
    bar.locator("input").fill("size 330, ")
    assert table.locator("tbody tr:visible").count() == 3
    bar.locator("button", has_text="draw the rows shown").click()
    page.wait_for_function("document.querySelectorAll('#accuracy_matrices svg.marks').length < 4")
    many.drawn()
    titles = many.figure("accuracy_matrices").locator("h4").all_inner_texts()
    assert titles
    assert all(title.startswith("size 330,") for title in titles)
    bar.locator("button", has_text="the first choice").click()
    page.wait_for_function("document.querySelectorAll('#accuracy_matrices svg.marks').length > 4")


@pytest.mark.parametrize(("form", "begins"), [("SVG", b"<svg"), ("PNG", b"\x89PNG"), ("CSV", b"panel,setting,")])
def test_a_figure_is_downloaded(form: str, begins: bytes, few: Opened) -> None:
    with few.page.expect_download() as waiting:
        few.figure("differences_from_sequential").get_by_role("button", name=form, exact=True).click()
    assert waiting.value.suggested_filename == f"differences_from_sequential.{form.lower()}"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "figure"
        waiting.value.save_as(path)
        assert path.read_bytes().startswith(begins)
        if form == "SVG":
            text = path.read_text()
            assert "task_energy 0.99" in text  # an axis
            assert "too few" in text or "difference" in text  # the legend
        if form == "PNG":
            with Image.open(path) as picture:
                assert picture.width > 1000
                assert picture.convert("L").getextrema()[0] < 100


def test_a_figure_alone_is_printed_as_pdf(few: Opened) -> None:
    few.page.evaluate("window.printed = []")
    few.page.evaluate(
        "new MutationObserver((changes) => changes.forEach((change) => change.addedNodes.forEach((node) =>"
        " node.tagName === 'IFRAME' && window.printed.push(node.srcdoc)))).observe(document.body, {childList: true})"
    )
    few.figure("differences_from_sequential").get_by_role("button", name="PDF").click()
    few.page.wait_for_function("window.printed.length === 1")
    assert "<svg" in few.page.evaluate("window.printed[0]")


def test_the_whole_page_prints(few: Opened) -> None:
    few.page.emulate_media(media="print")
    assert not few.page.locator(".tools:visible, .picking:visible, nav:visible").count()
    assert few.page.pdf().startswith(b"%PDF")


def test_the_charts_follow_the_screen_when_it_turns_dark_and_are_light_on_paper(few: Opened) -> None:
    colour = "getComputedStyle(document.querySelector('#accuracy_matrices svg.marks .role-axis-label text')).fill"
    light = few.page.evaluate(colour)
    few.page.emulate_media(color_scheme="dark")
    few.page.wait_for_selector("html[data-drawn]", state="attached")
    few.page.wait_for_function(f"(light) => {colour} !== light", arg=light)
    few.page.emulate_media(color_scheme="dark", media="print")
    assert few.page.evaluate(colour) == light


def told(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What rows say, with the digits that the page has to compare with."""
    return [
        {
            name: pytest.approx(value, rel=1e-4, abs=1e-6) if isinstance(value, float) else value
            for name, value in row.items()
            if value is not None
        }
        for row in rows
    ]


def test_the_page_draws_what_the_files_have(few: Opened, runs: dict[str, Path]) -> None:
    """`whole` is written in Python and in page.js."""
    figures = list(chain.from_iterable(figures_of(b) for _, b in sections(Context.of(read_results(runs["few"])))))
    for place, figure in enumerate(figures):
        found = few.page.evaluate("(i) => document.querySelectorAll('figure.chart')[i].chart.whole()", place)
        wanted = json.loads(json.dumps(whole(figure), default=list))
        assert len(found["concat"]) == len(wanted["concat"])
        for mine, theirs in zip(found["concat"], wanted["concat"], strict=True):
            rows = [{name: it for name, it in row.items() if it is not None} for row in mine.pop("data")["values"]]
            assert rows == told(theirs.pop("data")["values"])
            assert math.ceil(theirs.pop("width")) == mine.pop("width")
        wanted.pop("$schema")
        assert found == wanted, figure.name


def test_picked_settings_are_inside_the_chart(many: Opened) -> None:
    bar = many.page.locator("section", has_text="Settings and metrics").locator(".picking").first
    bar.locator("input").fill("task_energy 0.5")
    bar.locator("button", has_text="draw the rows shown").click()
    many.page.wait_for_timeout(400)
    many.drawn()
    outside = many.page.evaluate(OUTSIDE)
    assert outside == 0


def test_table_heads_answer_to_the_keyboard(few: Opened) -> None:
    head = few.page.locator("table.sortable thead th", has_text="forgetting").first
    head.focus()
    few.page.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "descending"
    few.page.keyboard.press(" ")
    assert head.get_attribute("aria-sort") == "ascending"


def test_the_legend_keeps_the_focus(few: Opened) -> None:
    entry = few.figure("average_accuracy_against_forgetting").locator(".legend button").first
    words = entry.inner_text()
    entry.focus()
    few.page.keyboard.press("Enter")
    few.page.wait_for_function(
        "document.querySelector('#average_accuracy_against_forgetting .legend button').ariaPressed === 'false'"
    )
    assert few.page.evaluate("document.activeElement.textContent") == words


def test_a_setting_that_was_not_ticked_is_drawn_when_it_is_chosen(many: Opened) -> None:
    figure = many.figure("shares_of_gradient_energy")
    options = figure.locator("select option").all_inner_texts()
    figure.locator("select").select_option(label=options[-1])
    many.page.wait_for_function("document.querySelectorAll('#shares_of_gradient_energy svg.marks').length === 1")
    assert figure.locator(".legend button").count() == 3
    fills = figure.locator(".mark-rect path").evaluate_all("(bars) => bars.map((bar) => bar.getAttribute('fill'))")
    assert len({*fills}) == 3


def test_every_series_of_every_figure_has_its_entry(few: Opened, runs: dict[str, Path]) -> None:
    figures = list(
        chain.from_iterable(figures_of(blocks) for _, blocks in sections(Context.of(read_results(runs["few"]))))
    )
    for place, figure in enumerate(figures):
        drawn = {row.get(figure.key) for panel in figure.shown() for row in figure.drawn(panel)}
        wanted = [one.label for one in figure.series if one.label in drawn] if len(figure.series) > 1 else []
        assert few.page.locator("figure.chart").nth(place).locator(".legend button").all_inner_texts() == wanted
