"""The first screen: every figure on it worked out again from the rows, by code of its own."""

from __future__ import annotations

import math
import re
import statistics
from pathlib import Path

import pytest
from scipy import stats

from orchestration.keep.tables import Row
from orchestration.report.context import Context
from orchestration.report.page import render
from orchestration.results.answer import answer, as_text
from orchestration.results.reading import Results, read_results
from orchestration.results.wanted import Limit, Wish
from tests.orchestration.results.test_results import energy, trial, write_run
from tests.support.places import ROOT

DATA = ROOT / "docs" / "data"


def told(results: Results) -> dict[str, str]:
    return dict(answer(results))


def numbers(text: str) -> list[float]:
    return [float(found.replace("−", "-").replace(",", "")) for found in re.findall(r"[+−]?\d[\d,]*\.?\d*", text)]


def by_seed(rows: list[Row], name: str) -> dict[object, float]:
    """Seed -> mean over its orders."""
    found: dict[object, list[float]] = {}
    for row in rows:
        found.setdefault(row["seed"], []).append(float(str(row[name])))
    return {seed: statistics.fmean(values) for seed, values in found.items()}


def interval(values: list[float]) -> tuple[float, float]:
    half = stats.t.ppf(0.975, len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))
    return statistics.fmean(values), half


@pytest.mark.parametrize("name", ["threshold", "pool", "fwd_prompt"])
def test_every_figure_follows_from_the_rows(name: str) -> None:
    results = read_results(DATA / name)
    lines = told(results)
    axes = [axis for axis in results.axes if axis != "order"]
    settings: dict[tuple[object, ...], list[Row]] = {}
    for row in results.finished:
        if row["method"] == "fwd_prompt":
            settings.setdefault(tuple(row[axis] for axis in axes), []).append(row)
    means = {
        key: statistics.fmean(by_seed(rows, "validation/average_accuracy").values()) for key, rows in settings.items()
    }
    best, second = sorted(means, key=lambda key: -means[key])[:2]
    for value in best:
        assert str(value) in lines["take"]
    mean, half = interval([*by_seed(settings[best], "validation/average_accuracy").values()])
    assert numbers(lines["because"])[:3] == pytest.approx([100 * mean, 100 * half, len(settings)], abs=0.051)
    found = numbers(lines["on test rows"])
    for i, metric in enumerate(("average_accuracy", "learning_accuracy", "forgetting")):
        mean, half = interval([*by_seed(settings[best], metric).values()])
        assert found[2 * i : 2 * i + 2] == pytest.approx([100 * mean, 100 * half], abs=0.051)
    base = [
        row
        for row in results.finished
        if row["method"] == "sequential"
        and all(row[axis] in (None, value) for axis, value in zip(axes, best, strict=True))
    ]
    shown = numbers(lines["against"].partition("average accuracy ")[2])
    mine, theirs = (by_seed(rows, "average_accuracy") for rows in (settings[best], base))
    mean, half = interval([mine[seed] - theirs[seed] for seed in mine])
    assert [shown[0], shown[2], shown[3]] == pytest.approx(
        [100 * mean, 100 * (mean - half), 100 * (mean + half)], abs=0.051
    )
    for value in second:
        assert str(value) in lines["runner-up"]
    seconds = statistics.fmean(float(str(row["seconds"])) for row in settings[best])
    assert numbers(lines["it costs"])[-1] == pytest.approx(seconds, abs=0.051)
    assert numbers(lines["it costs"])[0] == settings[best][0]["trained_parameters"]


def test_what_went_wrong_is_told_by_its_last_line(tmp_path: Path) -> None:
    error = "Traceback (most recent call last):\n  File x\nValueError: <b>no room</b>"
    rows = [energy("good", 0.5, 0, average_accuracy=0.5) | {"validation/average_accuracy": 0.5}]
    rows += [energy(f"bad{i}", 0.99, i, status="FAILED", error=error) for i in range(7)]
    rows += [energy(f"other{i}", 0.9, i, status="FAILED", error=f"reason {i}") for i in range(6)]
    results = read_results(write_run(tmp_path / "run", rows))
    lines = [line for line in answer(results) if line[0] in ("went wrong", "")]
    assert lines[0] == ("went wrong", "7 of 14 trials failed: ValueError: <b>no room</b> (bad0; and 6 more)")
    assert lines[1] == ("went wrong", "other0 failed: reason 0")
    assert lines[-1] == ("", "and 2 other reasons")
    page = render(Context.of(results))
    assert "7 of 14 trials failed: ValueError: &lt;b&gt;no room&lt;/b&gt;" in page
    assert page.index("The answer") < page.index("Trials without a final result") < page.index("What was run")


def test_before_anything_has_finished_it_says_so(tmp_path: Path) -> None:
    results = read_results(write_run(tmp_path / "run", [energy("a", 0.5, 0, status="UNFINISHED")]))
    lines = told(results)
    assert lines["take"].startswith("nothing yet")
    assert lines["went wrong"] == "a unfinished"
    assert lines["asked"].startswith("how well fwd_prompt, task_energy 0.5 does after 3 tasks of mini")


def test_one_seed_says_that_nothing_tells_how_sure_it_is(tmp_path: Path) -> None:
    rows = [
        energy(f"t{value}", value, 0, average_accuracy=value) | {"validation/average_accuracy": value}
        for value in (0.5, 0.99)
    ]
    rows.append(trial("s", "sequential", 0, average_accuracy=0.4))
    lines = told(read_results(write_run(tmp_path / "run", rows)))
    assert lines["how sure"].startswith("not told: it takes two seeds")
    assert "too few seeds to tell" in lines["against"]


def competing(tmp_path: Path, **others: object) -> dict[str, str]:
    """The answer on two settings of three seeds, of which 0.99 is better but for what `others` say of its last row."""
    rows = [trial(f"s{seed}", "sequential", seed, average_accuracy=0.3) for seed in range(3)]
    for value in (0.5, 0.99):
        for seed in range(3):
            row = energy(f"t{value}-{seed}", value, seed, average_accuracy=value)
            rows.append(row | {"validation/average_accuracy": value})
    rows[-1] |= others
    return told(read_results(write_run(tmp_path / "run", rows)))


def test_what_does_not_compete_is_named(tmp_path: Path) -> None:
    lines = competing(tmp_path, status="FAILED", average_accuracy=None)
    assert lines["take"] == "fwd_prompt, task_energy 0.5"
    assert lines["left out"] == "fwd_prompt, task_energy 0.99 (2 of its trials count, fewer than of others)"
    assert lines["how sure"] == "not told: nothing else competed"
    assert "runner-up" not in lines


def test_a_missing_validation_figure_is_named(tmp_path: Path) -> None:
    lines = competing(tmp_path, **{"validation/average_accuracy": None})
    assert "0.99 (2 of its trials count" in lines["left out"]


def test_after_halving_nothing_judges_the_choice(tmp_path: Path) -> None:
    lines = competing(tmp_path, status="STOPPED", error="stopped by halving after 1 of 3 stages")
    assert lines["how sure"].startswith("not told: halving has chosen")
    assert "0.99 (stopped by halving)" in lines["left out"]


def test_seeds_without_which_none_keeps_to_the_limits_count(tmp_path: Path) -> None:
    rows = []
    for value in (0.5, 0.99):
        for seed, accuracy in enumerate((0.9, 0.5, 0.5)):
            row = energy(f"t{value}-{seed}", value, seed, average_accuracy=accuracy)
            rows.append(row | {"validation/average_accuracy": accuracy + (0.01 if value == 0.5 else 0)})
    results = read_results(write_run(tmp_path / "run", rows))
    wish = Wish("average_accuracy", (Limit("average_accuracy", 0.6, most=False),))
    assert (
        "picked again 2 of 3 times, and 1 times no setting keeps to the limits"
        in dict(answer(results, wish))["how sure"]
    )


def test_the_nearest_to_the_limits_is_the_nearest(tmp_path: Path) -> None:
    rows = [
        energy(f"t{value}", value, 0, average_accuracy=accuracy) | {"validation/average_accuracy": accuracy}
        for value, accuracy in ((0.5, 0.3), (0.99, 0.4))
    ]
    wish = Wish("average_accuracy", (Limit("average_accuracy", 0.6, most=False),))
    lines = dict(answer(read_results(write_run(tmp_path / "run", rows)), wish))
    assert "the nearest is fwd_prompt, task_energy 0.99" in lines["take"]


def test_an_import_says_why_nothing_is_picked(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [trial("a", "somebody", 0, average_accuracy=0.5)], imported=[{"trial": "a"}])
    assert "an import does not have" in told(read_results(run))["take"]


def test_labels_stand_in_a_column() -> None:
    assert as_text([("a", "x"), ("longer", "y")]) == ["a       x", "longer  y"]
