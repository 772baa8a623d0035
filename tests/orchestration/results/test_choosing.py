"""A setting is judged on seeds that did not choose it."""

from __future__ import annotations

import numpy as np
import pytest

from orchestration.keep.tables import Row
from orchestration.results.choosing import choice
from orchestration.results.settings import VALIDATION, Setting

AXIS = "pool.kind"


def row(method: str, kind: str | None, seed: int, test: float, validation: float) -> Row:
    figures = {"average_accuracy": test, VALIDATION: validation}
    return {"method": method, AXIS: kind, "seed": seed, "order": "a>b", "status": "FINISHED", **figures}


def setting(kind: str) -> Setting:
    return Setting("fwd_prompt", ((AXIS, kind),))


def test_by_hand() -> None:
    """Validation means: a 0.5, b 0.4. Without seed 2, on which a shines, b is chosen (0.4 against 0.3)."""
    validation = {"a": (0.3, 0.3, 0.9), "b": (0.4, 0.4, 0.4)}
    test = {"a": (0.2, 0.3, 0.9), "b": (0.5, 0.5, 0.4)}
    rows = [row("fwd_prompt", kind, s, test[kind][s], validation[kind][s]) for kind in "ab" for s in range(3)]
    rows += [row("sequential", None, s, 0.1, 0.9) for s in range(3)]
    found = choice(rows, [AXIS])
    assert found is not None
    assert found.chosen == setting("a")
    assert found.naive.mean == pytest.approx((0.1 + 0.2 + 0.8) / 3)
    # seeds 0 and 1 are judged with a (the other two choose it), seed 2 with b
    assert found.times == {setting("a"): 2, setting("b"): 1}
    assert found.held_out.mean == pytest.approx((0.1 + 0.2 + 0.3) / 3)
    assert found.validation[setting("a")].mean == pytest.approx(0.5)


def test_a_setting_that_lacks_a_seed_does_not_compete_without_that_seed_either() -> None:
    rows = [row("fwd_prompt", "a", s, 0.3, 0.3) for s in range(3)]
    rows += [row("fwd_prompt", "c", s, 0.2, 0.2) for s in range(3)]
    rows += [row("fwd_prompt", "b", s, 0.9, 0.9) for s in range(2)]
    rows += [{**row("fwd_prompt", "b", 2, 0.1, 0.1), "status": "FAILED"}]
    rows += [row("sequential", None, s, 0.1, 0.9) for s in range(3)]
    found = choice(rows, [AXIS])
    assert found is not None
    assert found.times == {setting("a"): 3}
    assert (set(found.validation), found.held_out.n) == ({setting("a"), setting("c")}, 3)


def test_nothing_to_choose() -> None:
    rows = [row("fwd_prompt", "a", s, 0.5, 0.5) for s in range(3)]
    plain = [row("sequential", None, s, 0.1, 0.1) for s in range(3)]
    assert choice(rows + plain, [AXIS]) is None
    assert choice([*rows, row("fwd_prompt", "b", 0, 0.5, 0.5)], [AXIS]) is None  # no sequential
    assert choice([], [AXIS]) is None
    stopped = [{**found, "status": "STOPPED"} for found in rows]
    two = [row("fwd_prompt", "b", s, 0.5, 0.5) for s in range(3)]
    assert choice(rows + two + plain, [AXIS]) is not None
    assert choice(stopped + two + plain, [AXIS]) is None  # halving has looked at every seed


def test_among_equals_the_naive_figure_is_too_good_and_the_other_is_not() -> None:
    """400 sweeps of 16 settings that do nothing; validation and test share what the seed did to the model."""
    rng = np.random.default_rng(0)
    naive, held_out = [], []
    for _ in range(400):
        rows = []
        for kind in [*map(str, range(16)), None]:
            shared = rng.normal(size=5)
            test, validation = shared + 0.3 * rng.normal(size=5), shared + 0.3 * rng.normal(size=5)
            method = "fwd_prompt" if kind else "sequential"
            rows += [row(method, kind, s, float(test[s]), float(validation[s])) for s in range(5)]
        found = choice(rows, [AXIS])
        assert found is not None
        assert found.naive.mean is not None
        assert found.held_out.mean is not None
        naive.append(found.naive.mean)
        held_out.append(found.held_out.mean)
    error = np.std(held_out) / 20
    assert np.mean(naive) > 0.5
    assert abs(np.mean(held_out)) < 3 * error
