"""The figures of README.md and docs are those of the stored trials that they are said to come from.

A table below `<!-- python examples/markdown.py ... -->` is what that command prints, or, where the comment begins with
`rows of`, some of its rows. Differences with an interval in a section with such a comment are of its trials.
"""

from __future__ import annotations

import re
from functools import cache
from itertools import permutations
from pathlib import Path
from statistics import fmean

import pytest

from mcit_core.metrics import CATALOGUE
from mcit_core.yaml_document import load_yaml
from orchestration.best import main as best
from orchestration.keep.tables import Row
from orchestration.plan.sweep_file import load_spec
from orchestration.plan.trials import make_trials
from orchestration.results.comparisons import paired_difference
from orchestration.results.reading import read_results
from orchestration.results.settings import VALIDATION, best_setting, rows_by_setting
from orchestration.results.words import format_number
from orchestration.search.proposals import run_trials_of
from tests.orchestration.results.test_results import trial, write_run
from tests.support.examples import example

ROOT = Path(__file__).parent.parent
COMMAND = re.compile(r"<!-- (rows of )?python examples/markdown\.py (\w+) (\S+) ?(.*?) -->\n((?:\|.*\n)*)")
DIFFERENCE = re.compile(r"([+−]?[\d.]+)\s+\[([+−]?[\d.]+),\s+([+−]?[\d.]+)\]")
SEVERAL_RUNS = re.compile(r"<!-- python examples/several_runs\.py (\S+) (.*?) -->\n((?:\|.*\n)*)")
PAGES = ["README.md", *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md")))]
TABLES = [(page, *found) for page in PAGES for found in COMMAND.findall((ROOT / page).read_text())]
SECTIONS = [
    (page, section)
    for page in PAGES
    for section in re.split(r"^(?=## )", (ROOT / page).read_text(), flags=re.MULTILINE)
    if (COMMAND.search(section) or SEVERAL_RUNS.search(section)) and DIFFERENCE.search(section)
]


@pytest.mark.parametrize(("page", "part", "kind", "run", "metrics", "shown"), TABLES)
def test_a_table_is_what_its_command_prints(
    page: str, part: str, kind: str, run: str, metrics: str, shown: str
) -> None:
    printed = example("markdown").table(kind, ROOT / run, metrics.split()).splitlines()
    lines = shown.splitlines()
    assert len(lines) > 2
    if part:
        assert lines[:2] == printed[:2]
        assert [line for line in printed if line in lines] == lines
    else:
        assert lines == printed


def test_there_are_tables() -> None:
    assert {page for page, *_ in TABLES} >= {"README.md", "docs/findings.md"}
    assert SECTIONS


@cache
def differences(run: str) -> set[tuple[str, ...]]:
    """Every difference of two settings of a run, as it would be printed."""
    results = read_results(ROOT / run)
    known = set()
    for one, other in permutations(rows_by_setting(results.finished, results.axes), 2):
        for metric in (*CATALOGUE, VALIDATION):
            found = paired_difference(results.trials, metric, one, other, results.design)
            if found.interval is not None and found.mean is not None:
                numbers = (found.mean, *found.interval)
                known.add(tuple(format_number(metric, value, signed=True) for value in numbers))
    return known


@pytest.mark.parametrize(("page", "section"), SECTIONS, ids=lambda text: text.splitlines()[0][:60])
def test_differences_in_words_are_of_the_stored_trials(page: str, section: str) -> None:
    known = set[tuple[str, ...]]().union(*(differences(run) for _, _, run, *_ in COMMAND.findall(section)))
    for *_, shown in SEVERAL_RUNS.findall(section):  # which are what their command prints
        known |= {*DIFFERENCE.findall(shown)}
    for told in DIFFERENCE.findall(section):
        assert told in known, (page, told)


TWO_RUNS = re.compile(r"<!-- python examples/two_runs\.py (\S+) (\S+) ?(\w*) -->\n((?:\|.*\n)*)")


def test_tables_of_two_runs_are_what_their_command_prints() -> None:
    found = TWO_RUNS.findall((ROOT / "docs" / "findings.md").read_text())
    assert found
    for first, second, metric, shown in found:
        assert shown == example("two_runs").table(ROOT / first, ROOT / second, metric or "average_accuracy")


def test_tables_of_several_runs_are_what_their_command_prints() -> None:
    found = [table for page in PAGES for table in SEVERAL_RUNS.findall((ROOT / page).read_text())]
    assert found
    for runs, metrics, shown in found:
        folders = [ROOT / run for run in runs.split(",")]
        assert shown == example("several_runs").table(folders, metrics.split())


def test_several_runs_by_hand(tmp_path: Path) -> None:
    """Paired over seeds: 10, 20 and 30 points above; the interval of their mean is 4.303 x 10 / sqrt(3) either way."""
    for name, above in (("one", [0.0, 0.0, 0.0]), ("two", [0.1, 0.2, 0.3])):
        rows = [
            trial(f"fwd_prompt-{seed}", "fwd_prompt", seed, "a>b", average_accuracy=0.1 * seed + more)
            for seed, more in enumerate(above)
        ]
        write_run(tmp_path / name, rows)
    lines = example("several_runs").table([tmp_path / "one", tmp_path / "two"], ["average_accuracy"]).splitlines()
    assert lines[2:] == ["| `one` | 10.0 ± 24.8 |", "| `two` | 30.0 ± 49.7; +20.0 [−4.8, +44.8] |"]


SAVED = re.compile(r"<!-- python examples/saved\.py (.*?) -->\n((?:\|.*\n)*)")


def test_tables_of_what_was_saved_are_what_their_command_prints() -> None:
    found = [table for page in PAGES for table in SAVED.findall((ROOT / page).read_text())]
    assert found
    for runs, shown in found:
        assert shown == example("saved").table(ROOT / run for run in runs.split())


#: a sweep that chose -> what the page calls it
CHOOSING = {"search_grid": "grid", "search": "search", "search_seeds": "search over seeds"}


@pytest.mark.parametrize("name", CHOOSING)
def test_what_fresh_seeds_judge_is_what_validation_chose(name: str, tmp_path: Path) -> None:
    """And nothing of it is in the sweep that chose: neither a seed nor an order."""
    data, out = ROOT / "docs" / "data", tmp_path / "chosen.yaml"
    assert best([str(data / name), "--out", str(out)]) == 0
    chosen, fresh = load_yaml(out.read_text()), load_spec(data / f"{name}_fresh" / "sweep.yaml")
    assert {key: value for key, value in chosen.items() if "." in key} == fresh.base
    spec = load_spec(data / name / "sweep.yaml")
    choosing, judging = run_trials_of(spec, data / name), make_trials(fresh)
    assert not {trial.experiment.seed for trial in choosing} & {trial.experiment.seed for trial in judging}
    assert not {trial.order for trial in choosing} & {trial.order for trial in judging}
    results = read_results(data / name)
    found = best_setting(results.trials, results.axes, results.design)
    assert found is not None
    values = [f"{chosen[key]:.3g}" for key in spec.axes]
    shown = format_number(VALIDATION, found.metric(VALIDATION).mean)
    assert f"| {CHOOSING[name]} | {' | '.join(values)} | {shown} |" in (ROOT / "docs" / "findings.md").read_text()


def test_what_is_judged_on_fresh_seeds_is_judged_alike() -> None:
    data = ROOT / "docs" / "data"
    plain = load_spec(data / "search_preset_fresh" / "sweep.yaml")
    assert plain.base == {"train.steps": 60, "evaluation.rows": 100}
    assert load_spec(data / "search_preset" / "sweep.yaml").base == plain.base
    units = []
    for name in ("search_preset", *CHOOSING):
        rows = read_results(data / f"{name}_fresh").trials
        assert {row["status"] for row in rows} == {"FINISHED"}
        units.append(sorted((str(row["seed"]), str(row["order"])) for row in rows))
    assert len(units[0]) == 10
    assert units == [units[0]] * 4


def test_both_searches_begin_alike_and_one_seed_chooses_as_three_do() -> None:
    data = ROOT / "docs" / "data"
    spec = load_spec(data / "search" / "sweep.yaml")
    one, three = read_results(data / "search").trials, read_results(data / "search_seeds").trials
    begun = [
        {row["setting"]: tuple(row[axis] for axis in spec.axes) for row in rows if int(str(row["setting"])) < 18}
        for rows in (one, three)
    ]
    assert begun[0] == begun[1]
    assert len(begun[0]) == 18

    def first(rows: list[Row]) -> object:
        complete = [row for row in rows if row["state"] == "complete" and int(str(row["setting"])) < 18]
        means: dict[object, list[float]] = {}
        for row in complete:
            means.setdefault(row["setting"], []).append(float(str(row[VALIDATION])))
        return max(means, key=lambda setting: fmean(means[setting]))

    assert first(one) == first(three) == 16


def test_the_table_of_what_protects() -> None:
    """Its cells are those that the example printed."""
    printed = (ROOT / "docs" / "data" / "what_protects.txt").read_text().splitlines()[2:]
    kept = [[line[22 + 15 * i : 37 + 15 * i].strip() for i in range(9)] for line in printed]
    text = (ROOT / "docs" / "findings.md").read_text().split("| way | kept |")[1].split("\n\n")[0]
    shown = [[cell.strip() for cell in line.strip("|").split("|")][1:] for line in text.splitlines()[2:]]
    assert len(shown) == 10
    assert shown == kept


def test_the_table_of_what_pegp_keeps() -> None:
    assert (ROOT / "docs" / "data" / "what_pegp_keeps.txt").read_text() in (ROOT / "docs" / "findings.md").read_text()
