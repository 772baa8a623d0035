"""Seconds from stored stages: what must be equal, what is near enough, and medians."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcit_core.config import Experiment
from mcit_core.stages.keys import stage_chain
from orchestration.plan.timings import LIKE, NEAR, PROBED, ROUGH, Sample, Timings, busy, fit, training_likeness
from tests.support.timed import experiment


def likeness(one: Experiment, stage: int = 1, device: str = "cpu") -> tuple[str, ...]:
    return training_likeness(stage_chain(one, {}, {})[stage].made_from, device)


def test_medians_over_the_commonest_hardware() -> None:
    samples = [Sample(10, seconds, "AVX512") for seconds in (4.0, 5.0, 60.0)] + [Sample(10, 90.0, "AVX2")]
    found = fit(samples, LIKE)
    assert (found.each, found.fixed, found.samples, found.hardware) == (0.5, 0.0, 3, "AVX512")
    assert found.spread == pytest.approx(0.2)  # of 4/5, 5/5 and 60/5 the middle one is off by a fifth
    assert found.seconds(30) == 15.0


def test_what_a_stage_takes_beside_its_steps_is_told_by_stages_of_other_lengths() -> None:
    found = fit([Sample(10, 7.0), Sample(10, 7.0), Sample(40, 22.0)], LIKE)
    assert (found.fixed, found.each, found.units) == (2.0, 0.5, (10, 40))
    assert found.seconds(100) == 52.0


def test_lengths_that_hardly_differ_tell_nothing_of_it() -> None:
    found = fit([Sample(10, 5.0), Sample(11, 9.0)], LIKE)
    assert found.fixed == 0.0
    assert found.each == pytest.approx((0.5 + 9 / 11) / 2)


def test_a_longer_stage_that_took_less_is_noise() -> None:
    assert fit([Sample(10, 9.0), Sample(40, 8.0)], LIKE).each == pytest.approx((0.9 + 0.2) / 2)


@given(
    st.lists(
        st.builds(Sample, st.integers(1, 500), st.floats(0.01, 1e4), st.sampled_from(["a", "b"])),
        min_size=1,
        max_size=20,
    )
)
def test_whatever_was_measured_seconds_grow_with_steps_and_are_not_negative(samples: list[Sample]) -> None:
    found = fit(samples, LIKE)
    assert found.fixed >= 0
    assert 0 <= found.seconds(0) <= found.seconds(1) < found.seconds(2)
    assert found.spread is None or found.spread >= 0


SAME = {"train__lr": 0.3, "train__steps": 60, "train__schedule": "cosine", "pool__key_lr": 0.1, "seed": 7}
OTHER = {
    "train__batch_size": 8,
    "train__accumulate": 2,
    "train__precision": "bfloat16",
    "train__threads": 2,
}


@pytest.mark.parametrize("name", SAME)
def test_what_does_not_matter(name: str) -> None:
    assert likeness(experiment("fwd_prompt", **{name: SAME[name]})) == likeness(experiment("fwd_prompt"))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", OTHER)
def test_what_must_be_equal(name: str) -> None:
    other = likeness(experiment("fwd_prompt", **{name: OTHER[name]}))  # type: ignore[arg-type]
    assert not {*other} & {*likeness(experiment("fwd_prompt"))}


def test_the_device_the_tuner_and_the_model_must_be_equal() -> None:
    here = likeness(experiment("sequential"))
    assert not {*here} & {*likeness(experiment("sequential"), device="cuda")}
    assert not {*here} & {*likeness(experiment("sequential_lora"))}
    other = experiment("sequential").model_copy(update={"model": {"kind": "mini", "path": "x"}})
    assert not {*here} & {*likeness(other)}


def test_numbers_of_rows_do_not_matter_and_another_benchmark_does() -> None:
    one = experiment("sequential")
    fewer = one.model_copy(update={"benchmark": {"kind": "mini", "train_rows": 200}})
    assert likeness(fewer) == likeness(one)
    assert not {*likeness(one.model_copy(update={"benchmark": "coin"}))} & {*likeness(one)}


def test_the_most_alike_are_taken() -> None:
    wanted = likeness(experiment("fwd_prompt", projection__task_energy=0.9))
    timings = Timings()
    assert timings.train(wanted) is None
    for one, seconds, alike in (
        (experiment("sequential"), 1.0, ROUGH),
        (experiment("fwd_prompt", projection__task_energy=0.5), 2.0, NEAR),
        (experiment("fwd_prompt", projection__task_energy=0.9, order=("ground", "attribute")), 3.0, LIKE),
        (experiment("fwd_prompt", projection__task_energy=0.9, seed=3), 4.0, LIKE),
    ):
        timings.add_training(likeness(one), Sample(10, 10 * seconds))
        found = timings.train(wanted)
        assert found is not None
        assert (found.each, found.alike) == (seconds, alike)


def test_a_first_stage_is_another_than_a_protected_one() -> None:
    one = experiment("ewc")
    timings = Timings()
    timings.add_training(likeness(one, 0), Sample(10, 10.0))
    found = timings.train(likeness(one, 1))
    assert found is not None
    assert found.alike == ROUGH


def test_a_probe_is_told_apart() -> None:
    timings, wanted = Timings(), likeness(experiment("sequential"))
    timings.add_training(wanted[:3], Sample(1, 0.5))
    timings.probed |= {*wanted[:3]}
    found = timings.train(wanted)
    assert found is not None
    assert found.alike == PROBED


def test_memory_is_that_of_the_same_sizes_alone() -> None:
    timings = Timings()
    timings.add_size(likeness(experiment("sequential_lora")), 1000, 5e9)
    timings.add_size(likeness(experiment("sequential_lora", seed=1)), 3000, 6e9)
    larger = likeness(experiment("sequential_lora", lora__rank=64))
    assert timings.memory(likeness(experiment("sequential_lora"))) == 6e9
    assert timings.memory(larger) is None
    assert timings.bytes(larger) == 2000


def test_what_else_ran_on_the_machine_is_left_out_where_that_can_be_told() -> None:
    assert busy(9.0, 4.0, "cpu") == 4.0
    assert busy(9.0, 16.0, "cpu") == 9.0  # of several threads
    assert busy(9.0, 4.0, "cuda") == 9.0  # the CPU waits for the GPU
    assert busy(9.0, None, "cpu") == 9.0
    assert busy(float("nan"), 4.0, "cpu") is None
