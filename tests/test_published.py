"""The figures of README.md and docs/findings.md are those of the stored trials that they are said to come from."""

from __future__ import annotations

import re
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from orchestration.keep.tables import Row
from orchestration.results.comparisons import paired_values
from orchestration.results.estimates import Design, estimate_units
from orchestration.results.settings import estimate_rows
from orchestration.results.words import format_estimate, format_number

ROOT = Path(__file__).parent.parent
TRIALS: list[Row] = pq.read_table(ROOT / "docs" / "data" / "fwd_prompt" / "trials.parquet").to_pylist()
DESIGN = Design("fixed", tuple(dict.fromkeys(row["order"] for row in TRIALS if row["method"] == "sequential")))
AXES = ("pool.reuse", "projection.mode")
#: how a row of the two tables begins -> method and axes of its trials
ROWS: dict[str, tuple[str, ...]] = {
    "direct": ("direct",),
    "fwd_prompt_freeze: prompts": ("fwd_prompt", "freeze", "none"),
    "fwd_prompt: prompts and directions": ("fwd_prompt", "freeze", "both"),
    "fwd_prompt_directions, task_energy 0.8": ("fwd_prompt", "share", "both"),
    "sequential": ("sequential",),
    "claimed ones left alone | V_pre outside C (`fwd_prompt`)": ("fwd_prompt", "freeze", "both"),
    "claimed ones left alone | all (`fwd_prompt_freeze`)": ("fwd_prompt", "freeze", "none"),
    "shared | V_pre outside C": ("fwd_prompt", "share", "both"),
    "shared (`sequential`) | all": ("sequential",),
    "`direct` |": ("direct",),
}
HEADINGS = {
    "validation average": "validation/average_accuracy",
    "average accuracy": "average_accuracy",
    "learning accuracy": "learning_accuracy",
    "forgetting": "forgetting",
    "forward transfer": "forward_transfer",
    "content forward transfer": "content_forward_transfer",
    "pre-trained retention": "pretrained_retention",
}


def trials(method: str, *values: str) -> list[Row]:
    return [
        row
        for row in TRIALS
        if row["method"] == method and all(row[axis] == value for axis, value in zip(AXES, values, strict=False))
    ]


def tables(path: Path) -> list[tuple[str, str, str]]:
    """(row, metric, printed) of every cell of the tables whose rows are in ROWS, headings of this sweep only."""
    found = []
    for block in re.findall(r"(?:^\|.*\n)+", path.read_text(), re.MULTILINE):
        heading, _, *lines = (line.strip("|").split("|") for line in block.splitlines())
        names = [re.sub("[↑↓*]", "", cell).strip() for cell in heading]
        for line in lines:
            label = next((row for row in ROWS if " | ".join(cell.strip() for cell in line[:2]).startswith(row)), None)
            if label is None:
                continue
            for name, cell in zip(names, line, strict=True):
                printed = cell.strip().replace("*", "")
                if name in HEADINGS and printed not in ("", "–"):
                    found.append((label, HEADINGS[name], printed))
    return found


@pytest.mark.parametrize(("name", "least"), [("README.md", 18), ("docs/findings.md", 30)])
def test_tables_of_the_sweep_fwd_prompt(name: str, least: int) -> None:
    cells = tables(ROOT / name)
    assert len(cells) >= least
    for label, metric, printed in cells:
        known = estimate_rows(trials(*ROWS[label]), metric, DESIGN)
        assert printed == format_estimate(metric, known), (label, metric)


def test_differences_that_are_published() -> None:
    """Every difference with an interval in the paragraph below the table of findings is one of the sweep's."""
    settings = [*dict.fromkeys(ROWS.values())]
    known = set()
    for one in settings:
        for other in settings:
            for metric in HEADINGS.values():
                found = estimate_units(paired_values(trials(*one), trials(*other), metric), DESIGN)
                if found.interval is not None:
                    low, high = found.interval
                    known.add(tuple(format_number(metric, value, signed=True) for value in (found.mean, low, high)))
    for name in ("README.md", "docs/findings.md"):
        text = (ROOT / name).read_text().split("## Which part of Fwd-Prompt")[-1]
        text = text.split("- **The abstract's plain reading")[0].split("## What is here")[0]
        told = re.findall(r"([+−]?[\d.]+)\s+\[([+−]?[\d.]+),\s+([+−]?[\d.]+)\]", text)
        assert told
        for difference in told:
            assert difference in known, (name, difference)


def test_the_table_of_what_protects() -> None:
    """Its cells are those that the example printed."""
    printed = (ROOT / "docs" / "data" / "what_protects.txt").read_text().splitlines()[2:]
    kept = [[line[22 + 15 * i : 37 + 15 * i].strip() for i in range(9)] for line in printed]
    text = (ROOT / "docs" / "findings.md").read_text().split("| way | kept |")[1].split("\n\n")[0]
    shown = [[cell.strip() for cell in line.strip("|").split("|")][1:] for line in text.splitlines()[2:]]
    assert len(shown) == 10
    assert shown == kept
