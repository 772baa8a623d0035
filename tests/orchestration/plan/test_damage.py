"""Whatever happens to a sweep file or to `--set`: a spec, or a SpecError with a line, and never anything else."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from mcit_core.yaml_document import SpecError, dump_yaml, load_yaml
from orchestration.arguments import NO_SWEEP, SHIPPED
from orchestration.plan.sweep_file import load_spec
from tests.orchestration.plan.test_spec import GOOD

TEXTS = [GOOD, *(path.read_text() for path in sorted(SHIPPED.glob("*.yaml")) if path.stem != NO_SWEEP)]
SCRAPS = [
    *(
        "010",
        "1_0",
        "1:30",
        "1e-3",
        "no",
        "~",
        "null",
        "[]",
        "{}",
        "-1",
        "0",
        "1e400",
        ".nan",
        "true",
        "''",
        "2001-01-01",
    ),
    *(
        "[1, [2]]",
        "{kind: [a]}",
        "{kind: mini}",
        "&a [*a]",
        "*b",
        "!!python/object:os.system x",
        "<<: {a: 1}",
        "é",
        "\x00",
    ),
    *("name", "axes:", "base: {train: 3}", "  - ", "\t", ": ", "#", '"', "'", "|", ">", "%", "@", "`", "options.x: 1"),
]
KEYS = [
    *("name", "tasks", "seeds", "base", "axes", "axes.order", "axes.train.lr", "axes.method", "base.train", "options"),
    *("train.steps", "options.a", "model", "model.path", "benchmark.kind", "halving", "halving.reduction", "resources"),
    *("resources.gpus", "references", "method", "tuner", "order", "", ".", "a.b.c", "train.", "projection.mode"),
]


def hurt(text: str, rng: random.Random) -> str:
    lines = text.splitlines()
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(lines))
        place = rng.randrange(len(lines[at]) + 1)
        scrap = rng.choice(SCRAPS)
        head, _, _ = lines[at].partition(":")
        lines[at : at + 1] = rng.choice(
            [
                [],
                [lines[at], lines[at]],
                [lines[at][:place]],
                [lines[at][:place] + scrap + lines[at][place:]],
                [f"{head}: {scrap}"],
                ["  " + lines[at]],
                [lines[at], rng.choice(lines)],
            ]
        )
        lines = lines or [""]
    return "\n".join(lines)


@pytest.mark.parametrize("cases", [200, pytest.param(5000, marks=pytest.mark.slow)])
def test_a_damaged_file_and_odd_assignments_are_read_or_refused(cases: int, tmp_path: Path) -> None:
    rng = random.Random(0)
    path = tmp_path / "sweep.yaml"
    refused = 0
    for _ in range(cases):
        text = rng.choice(TEXTS)
        path.write_text(text if rng.random() < 0.4 else hurt(text, rng))
        assignments = [f"{rng.choice(KEYS)}={rng.choice(SCRAPS)}" for _ in range(rng.choice([0, 1, 1, 2]))]
        try:
            load_spec(path, assignments)
        except SpecError:
            refused += 1
        except Exception as error:
            raise AssertionError(f"{type(error).__name__}: {error}\n{path.read_text()}\n{assignments}") from error
    assert refused > cases / 2


@pytest.mark.parametrize(
    "text", ["no", "on", "1e-3", "010", "1_0", "1:30", "2001-01-01", "~", "", "null", "0x1f", ".5", "="]
)
def test_text_that_looks_like_something_else_comes_back_as_text(text: str) -> None:
    assert load_yaml(dump_yaml({"a": [text]})) == {"a": [text]}


def test_numbers_and_words_are_those_of_yaml_1_2() -> None:
    read = load_yaml("[1e-3, 3e-2, -1.5E+2, .5, 7, 0x1f, 0o17, true, null, ~, yes, no, on, off, 2001-01-01]")
    assert read == [0.001, 0.03, -150.0, 0.5, 7, 31, 15, True, None, None, "yes", "no", "on", "off", "2001-01-01"]
