"""Series of steps and shares of rows, by hand."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, strategies

from mcit_core.stages.results import StageResult
from orchestration.keep.tables import steps_table
from orchestration.results.routing import Routing, mean_routing, routing_of
from orchestration.results.traces import LOSS, WEIGHT, Stages, Window, read_traces, trace_series


def traces(*weights: list[float | None]) -> dict[str, Stages]:
    """A first stage of three steps without an average, then two with the weights of each trial."""
    return {
        f"t{number}": {0: {LOSS: [1.0] * 3}, 1: {LOSS: [1.0] * len(found), WEIGHT: found}}
        for number, found in enumerate(weights)
    }


def test_a_series_by_hand() -> None:
    found = trace_series(traces([0.2, 0.4], [0.6, None]))
    assert found.value is not None
    assert found.value.begins == (0, 3)
    assert found.value.trials == 2
    gaps = [Window(step, step, None, None, None) for step in range(3)]
    steps = [Window(3, 3, pytest.approx(0.4), 0.2, 0.6), Window(4, 4, 0.4, 0.4, 0.4)]
    assert list(found.value.windows) == [*gaps, *steps]


def test_windows_have_the_smallest_and_the_largest_value() -> None:
    found = trace_series(traces([0.1, 0.9, 0.5, 0.5, 0.7], [0.3, 0.9, 0.5, 0.5, 0.7]), most=2).value
    assert found is not None
    assert [(window.first, window.last) for window in found.windows] == [(0, 3), (4, 7)]
    assert [(window.low, window.high) for window in found.windows] == [(0.1, 0.3), (0.5, 0.9)]
    assert [window.mean for window in found.windows] == pytest.approx([0.2, (0.9 + 0.5 + 0.5 + 0.7) / 4])


def test_what_has_no_series() -> None:
    assert trace_series({}) == (None, "no trial has ema/weight")
    assert trace_series(traces([None, None])).value is None
    assert trace_series(traces([0.5], [0.5, 0.5])) == (None, "the trials' stages take different numbers of steps")
    with pytest.raises(ValueError, match="one window at least"):
        trace_series(traces([0.5]), most=0)


@given(
    strategies.lists(strategies.none() | strategies.floats(0, 1), min_size=1, max_size=60), strategies.integers(1, 70)
)
def test_windows_cover_every_step_once(values: list[float | None], most: int) -> None:
    found = trace_series({"t": {0: {WEIGHT: values}}}, most=most).value
    known = [value for value in values if value is not None]
    if not known:
        assert found is None
        return
    assert found is not None
    assert [step for one in found.windows for step in range(one.first, one.last + 1)] == list(range(len(values)))
    assert len(found.windows) == min(most, len(values))
    assert min(one.low for one in found.windows if one.low is not None) == min(known)
    assert max(one.high for one in found.windows if one.high is not None) == max(known)
    for one in found.windows:
        if one.mean is not None:
            assert one.low is not None
            assert one.high is not None
            assert one.low - 1e-12 <= one.mean <= one.high + 1e-12


def test_steps_are_read_from_the_file(tmp_path: Path) -> None:
    assert read_traces(tmp_path, ["t"]) == {}
    tables = [
        steps_table("t", 1, WEIGHT, [0.5, None, 0.25]),
        steps_table("t", 0, LOSS, [3.0, 2.0]),
        steps_table("t", 1, LOSS, [3.0, 2.0, 1.0]),
        steps_table("t", 1, "ema/raw", [9.0, 9.0, 9.0]),
        steps_table("other", 1, WEIGHT, [0.1]),
    ]
    pq.write_table(pa.concat_tables(tables), tmp_path / "steps.parquet")
    found = read_traces(tmp_path, ["t"])
    assert found == {"t": {0: {LOSS: [3, 2]}, 1: {LOSS: [3, 2, 1], WEIGHT: [0.5, None, 0.25]}}}
    series = trace_series(found).value
    assert series is not None
    assert [window.mean for window in series.windows] == [None, None, 0.5, None, 0.25]
    (tmp_path / "steps.parquet").write_bytes(b"no table")
    with pytest.raises(ValueError, match=r"steps\.parquet is damaged"):
        read_traces(tmp_path, ["t"])


def stage(**metrics: float) -> list[StageResult]:
    return [StageResult(0, "b", metrics={name.replace("__", "/"): value for name, value in metrics.items()})]


def test_routing_by_hand() -> None:
    sent = {"grouping__sent__a__0": 0.75, "grouping__sent__a__1": 0.25, "grouping__sent__b__1": 1.0}
    found = routing_of(stage(grouping__group__a=0, grouping__group__b=1, grouping__group__c=0, **sent))
    assert found == Routing(("a", "b", "c"), (0, 1, 0), [[0.75, 0.25], [None, 1.0], [None, None]])
    assert found.groups == [("a", "c"), ("b",)]
    assert routing_of([]) is None
    assert routing_of(stage(loss__last=1.0)) is None


def test_trials_that_group_alike_have_a_mean() -> None:
    one = Routing(("a", "b"), (0, 1), [[1.0, 0.0], [0.5, None]])
    other = Routing(("a", "b"), (0, 1), [[0.5, 0.5], [0.0, None]])
    assert mean_routing([one, other]) == Routing(("a", "b"), (0, 1), [[0.75, 0.25], [0.25, None]])
    assert mean_routing([one, Routing(("a", "b"), (0, 0), [[1.0], [1.0]])]) is None
    assert mean_routing([]) is None
