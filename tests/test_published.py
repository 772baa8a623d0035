"""The figures of README.md and docs are those of the stored trials that they are said to come from.

A table below `<!-- python examples/markdown.py ... -->` is what that command prints, or, where the comment begins with
`rows of`, some of its rows. Differences with an interval in a section with such a comment are of its trials.
"""

from __future__ import annotations

import re
from functools import cache
from itertools import permutations
from pathlib import Path

import pytest

from mcit_core.metrics import CATALOGUE
from mcit_core.yaml_document import load_yaml
from orchestration.best import main as best
from orchestration.plan.sweep_file import load_spec
from orchestration.plan.trials import make_trials
from orchestration.results.comparisons import paired_difference
from orchestration.results.reading import read_results
from orchestration.results.settings import VALIDATION, rows_by_setting
from orchestration.results.words import format_number
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
    found = SEVERAL_RUNS.findall((ROOT / "docs" / "findings.md").read_text())
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
    found = SAVED.findall((ROOT / "docs" / "findings.md").read_text())
    assert found
    for runs, shown in found:
        assert shown == example("saved").table(ROOT / run for run in runs.split())


@pytest.mark.parametrize("name", ["search", "search_grid", "search_seeds"])
def test_what_fresh_seeds_judge_is_what_validation_chose(name: str, tmp_path: Path) -> None:
    """And nothing of it is in the sweep that chose: neither a seed nor an order."""
    data, out = ROOT / "docs" / "data", tmp_path / "chosen.yaml"
    assert best([str(data / name), "--out", str(out)]) == 0
    chosen, fresh = load_yaml(out.read_text()), load_spec(data / f"{name}_fresh" / "sweep.yaml")
    assert {key: value for key, value in chosen.items() if "." in key} == fresh.base
    spec = load_spec(data / name / "sweep.yaml")
    assert not {*spec.seeds} & {*fresh.seeds}
    assert ">".join(spec.tasks) not in {trial.order for trial in make_trials(fresh)}


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
