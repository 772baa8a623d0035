"""Moving averages: both of LLaCA's weights by hand, what is done where they are undefined, and the running average."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from mcit_core.averaging import FALLBACK, Averager, per_tensor_weight, settle, taylor_weight
from mcit_core.config import Off
from mcit_core.data.workbench import Workbench
from mcit_core.methods import build_experiment
from mcit_core.training.stage import build_tuner, train_stage

# two parameters, worked by hand: ‖g‖₁ = 4, ‖θ - θ_prev‖₁ = 0.75, ‖θ - θ*‖₁ = 3.5, ‖g - g_prev‖₁ = 3
G, G_PREV = torch.tensor([3.0, -1.0]), torch.tensor([1.0, -2.0])
W, W_PREV, AVERAGED = torch.tensor([1.0, 2.0]), torch.tensor([0.5, 2.25]), torch.tensor([-1.0, 0.5])


def parts(tensor: Tensor) -> list[Tensor]:
    return list(tensor.split(1))


def test_the_papers_weight_by_hand() -> None:
    wanted = (4 + 1) * 0.75 / (3.5 * 3)  # 0.357...
    assert taylor_weight([G], [G_PREV], [W], [W_PREV], [AVERAGED]) == pytest.approx(wanted, rel=1e-12)


def test_the_released_codes_weight_by_hand() -> None:
    wanted = 1 - 2 * (1 + 4) / (3.5 * 3)  # 0.0476...
    assert per_tensor_weight(G, G_PREV, W, AVERAGED) == pytest.approx(wanted, rel=1e-6)


def test_the_papers_weight_is_one_number_over_all_tensors() -> None:
    whole = taylor_weight([G], [G_PREV], [W], [W_PREV], [AVERAGED])
    split = taylor_weight(parts(G), parts(G_PREV), parts(W), parts(W_PREV), parts(AVERAGED))
    assert split == pytest.approx(whole, rel=1e-6)
    # the other form sees one tensor alone: for the first, 1 - 2 (1 + 3) / (2 * 2) = -1 is outside
    assert per_tensor_weight(G[:1], G_PREV[:1], W[:1], AVERAGED[:1]) == FALLBACK


@pytest.mark.parametrize("missing", ["distance", "gradient_change", "infinite"])
def test_an_undefined_weight_is_099(missing: str) -> None:
    averaged = W if missing == "distance" else AVERAGED
    prev = G if missing == "gradient_change" else G_PREV
    grad = torch.full_like(G, math.inf) if missing == "infinite" else G
    assert taylor_weight([grad], [prev], [W], [W_PREV], [averaged]) == 0.99
    assert per_tensor_weight(grad, prev, W, averaged) == 0.99


def test_a_weight_outside_is_099_or_clipped() -> None:
    far = 100 * W_PREV
    assert taylor_weight([G], [G_PREV], [W], [far], [AVERAGED]) == 0.99
    assert taylor_weight([G], [G_PREV], [W], [far], [AVERAGED], outside="clip") == 1.0
    assert taylor_weight([G], [G_PREV], [W], [W], [AVERAGED]) == 0.99  # nothing moved: a weight of exactly zero
    assert taylor_weight([G], [G_PREV], [W], [W], [AVERAGED], outside="clip") == 0.0
    assert settle(None, "clip") == 0.99


numbers = st.lists(st.floats(-1e3, 1e3, width=32), min_size=3, max_size=3).map(torch.tensor)


@given(numbers, numbers, numbers, numbers, numbers, st.sampled_from(["fallback", "clip"]))
def test_a_weight_is_always_one(g: Tensor, p: Tensor, w: Tensor, v: Tensor, a: Tensor, outside: str) -> None:
    for weight in (taylor_weight([g], [p], [w], [v], [a], outside), per_tensor_weight(g, p, w, a)):  # type: ignore[arg-type]
        assert 0 <= weight <= 1


@given(numbers, numbers, numbers, numbers, numbers)
def test_the_papers_weight_does_not_see_where_zero_is(g: Tensor, p: Tensor, w: Tensor, v: Tensor, a: Tensor) -> None:
    here = taylor_weight([g.double()], [p.double()], [w.double()], [v.double()], [a.double()])
    there = taylor_weight([g.double()], [p.double()], [w.double() + 1], [v.double() + 1], [a.double() + 1])
    assert here == pytest.approx(there, rel=1e-6) or {here, there} & {FALLBACK}  # at the borders rounding decides


def walk(averager: Averager, parameter: nn.Parameter, grads: list[Tensor], lr: float = 0.5) -> None:
    for grad in grads:
        parameter.grad = grad.to(parameter.dtype)
        averager.see_gradients()
        with torch.no_grad():
            parameter -= lr * parameter.grad
        averager.see_step()


GRADS = [torch.tensor([2.0, -1.0]), torch.tensor([1.5, 0.5]), torch.tensor([-1.0, 0.25]), torch.tensor([0.5, 1.0])]


def test_a_fixed_average_by_hand() -> None:
    parameter = nn.Parameter(torch.tensor([1.0, 0.0]))
    averager = Averager({"w": parameter}, "fixed", weight=0.75)
    walk(averager, parameter, GRADS[:2])
    # weights (0, 0.5), (-0.75, 0.25); averages 0.75 * (1, 0) + 0.25 * (0, 0.5) = (0.75, 0.125), then (0.375, 0.15625)
    metrics = averager.finish()
    assert parameter.tolist() == [0.375, 0.15625]
    assert metrics == {"ema/mean_weight": 0.75}
    assert averager.trace == {"weight": [0.75, 0.75]}


@given(st.lists(numbers, min_size=1, max_size=6), st.floats(0, 1), numbers)
def test_a_fixed_average_is_bit_for_bit_that_of_the_weights_after_each_step(
    grads: list[Tensor], weight: float, start: Tensor
) -> None:
    parameter = nn.Parameter(start.clone())
    averager = Averager({"w": parameter}, "fixed", weight=weight)
    weights, averaged = start.clone(), start.clone()
    for grad in grads:
        weights = weights - 0.5 * grad
        averaged.lerp_(weights, 1 - weight)
    walk(averager, parameter, grads)
    averager.finish()
    assert torch.equal(parameter.detach(), averaged)


def moved(averager: Averager, parameter: nn.Parameter, positions: list[float], grads: list[float]) -> None:
    """One number moved through `positions`, which begin after the first step, whatever its gradients say."""
    for position, grad in zip(positions, grads, strict=True):
        parameter.grad = torch.tensor([grad])
        averager.see_gradients()
        with torch.no_grad():
            parameter.fill_(position)
        averager.see_step()


def test_the_papers_timing_by_hand() -> None:
    """θ 0, 1, 2, 3 with gradients -3, 3, -2. The first weight is undefined, and 0 enters 0. At θ = 1:
    (3 + 1) * 1 / ((1 - 0) * 6) = 2/3, the average is 1/3. At θ = 2: (2 + 1) * 1 / ((2 - 1/3) * 5) = 0.36, the average
    is 0.36 / 3 + 0.64 * 2 = 1.4. At the end 3 enters with 0.36: 0.36 * 1.4 + 0.64 * 3 = 2.424."""
    parameter = nn.Parameter(torch.tensor([0.0]))
    averager = Averager({"w": parameter}, "taylor")
    moved(averager, parameter, [1.0, 2.0, 3.0], [-3.0, 3.0, -2.0])
    assert averager.trace["weight"] == pytest.approx([FALLBACK, 2 / 3, 0.36], rel=1e-6)
    assert averager.averaged[0].item() == pytest.approx(1.4, rel=1e-6)
    averager.finish()
    assert parameter.item() == pytest.approx(2.424, rel=1e-6)


def test_steady_motion_settles_where_the_formula_does() -> None:
    """With r = (‖g‖₁ + 1) / ‖Δg‖₁ = 0.8 and equal steps: r / (1 + r), while an average that already holds the weights
    would settle at the root of w² + r w - r, 0.58."""
    size, ratio = 1 / 0.6, 0.8
    parameter = nn.Parameter(torch.tensor([0.0]))
    averager = Averager({"w": parameter}, "taylor")
    moved(averager, parameter, [float(t) for t in range(1, 41)], [size * (-1) ** t for t in range(40)])
    assert averager.trace["weight"][-1] == pytest.approx(ratio / (1 + ratio), abs=1e-3)


def test_the_released_codes_timing_by_hand() -> None:
    """θ after the steps 1, 3, 6; gradients 12, -12, -11. The average begins as 1. After the second step the weight on
    the new is 2 (1 + 12) / ((3 - 1) * 24) = 13/24 and the average 1 + 2 * 13/24; after the third 2 * 12 / (... * 1) is
    outside, so 0.01 on the new."""
    parameter = nn.Parameter(torch.tensor([0.0]))
    averager = Averager({"w": parameter}, "per_tensor")
    moved(averager, parameter, [1.0, 3.0, 6.0], [12.0, -12.0, -11.0])
    assert averager.trace["weight"] == [None, pytest.approx(11 / 24, rel=1e-6), FALLBACK]
    assert averager.trace["outside"] == [None, 0.0, 1.0]
    second = 1 + 2 * 13 / 24
    averager.finish()
    assert parameter.item() == pytest.approx(second + 0.01 * (6 - second), rel=1e-6)


def test_the_running_average_uses_the_weight_that_the_function_gives() -> None:
    parameter = nn.Parameter(torch.tensor([1.0, 0.0]))
    averager = Averager({"w": parameter}, "taylor", outside="clip")
    weights, averaged, used = [parameter.detach().clone()], parameter.detach().clone(), []
    for grad in GRADS:
        weights.append(weights[-1] - 0.5 * grad)
    for t, grad in enumerate(GRADS):
        used.append(
            taylor_weight([grad], [GRADS[t - 1]], [weights[t]], [weights[t - 1]], [averaged], outside="clip")
            if t
            else FALLBACK
        )
        averaged = used[-1] * averaged + (1 - used[-1]) * weights[t]
    walk(averager, parameter, GRADS)
    assert averager.trace["weight"] == pytest.approx(used, rel=1e-6)
    assert any(0 < weight < 1 and weight != FALLBACK for weight in used)
    assert torch.allclose(averager.averaged[0], averaged)
    averager.finish()
    assert torch.allclose(parameter.detach(), used[-1] * averaged + (1 - used[-1]) * weights[-1])


def test_the_trace_has_every_step_and_hides_no_fall_back() -> None:
    parameter = nn.Parameter(torch.tensor([1.0, 0.0]))
    averager = Averager({"w": parameter}, "taylor")
    walk(averager, parameter, [*GRADS, GRADS[-1]])  # the last gradient did not change: undefined
    trace = averager.trace
    terms = {"gradient", "weight_change", "distance", "gradient_change"}
    assert set(trace) == {"weight", "raw", "undefined", "outside", *terms}
    assert all(len(values) == 5 for values in trace.values())
    assert trace["undefined"] == [1, 0, 0, 0, 1]
    assert trace["raw"][0] is None
    assert trace["raw"][-1] is None
    for raw, weight, out in zip(trace["raw"], trace["weight"], trace["outside"], strict=True):
        assert out == (raw is not None and not 0 < raw < 1)
        assert weight == (raw if raw is not None and not out else FALLBACK)
    metrics = averager.finish()
    assert metrics["ema/mean_undefined"] == 0.4


def test_per_tensor_shares_are_counted_over_tensors() -> None:
    one, two = nn.Parameter(torch.tensor([1.0, 0.0])), nn.Parameter(torch.tensor([3.0]))
    averager = Averager({"one": one, "two": two}, "per_tensor")
    for grad in GRADS:
        one.grad, two.grad = grad, torch.tensor([1.0])  # the second's gradient never changes: never defined
        averager.see_gradients()
        with torch.no_grad():
            one -= 30 * one.grad
            two -= two.grad
        averager.see_step()
    assert averager.trace["undefined"] == [None, 0.5, 0.5, 0.5]
    assert len(set(averager.trace["weight"])) > 1
    # the second is a constant average with 0.99: 2, the weights after the first step, then 1, 0, -1 taken in
    wanted = 2.0
    for new in (1.0, 0.0, -1.0):
        wanted = 0.99 * wanted + 0.01 * new
    assert averager.averaged[1].item() == pytest.approx(wanted, rel=1e-6)


def test_averages_are_float32_beside_parameters_of_any_precision() -> None:
    parameter = nn.Parameter(torch.tensor([1.0, 0.0], dtype=torch.bfloat16))
    averager = Averager({"w": parameter}, "fixed", weight=0.999)
    walk(averager, parameter, GRADS)
    assert averager.averaged[0].dtype == torch.float32
    assert averager.averaged[0][0] < 1  # in bfloat16 a step of a thousandth would be lost


@pytest.mark.parametrize("kind", ["fixed", "taylor", "per_tensor"])
def test_a_stage_leaves_the_average_and_trains_on_from_it(kind: str, bench: Workbench) -> None:
    settings = {"train.steps": 4, "train.batch_size": 8, "averaging.kind": kind}
    averaged = build_experiment("tiny", "mini", "sequential_lora", ("attribute", "ground"), 0, settings)
    plain = averaged.model_copy(update={"averaging": Off(kind="none")})
    first, measured = train_stage(averaged, bench, 0, None)
    assert first.equals(train_stage(plain, bench, 0, None)[0])  # with no earlier task there is nothing to hold on to
    assert "ema/weight" not in measured.traces
    second, measured = train_stage(averaged, bench, 1, first)
    trained, _ = train_stage(plain, bench, 1, first)
    assert len(measured.traces["ema/weight"]) == 4
    near = sum(float((second.tensors[name] - first.tensors[name]).norm()) for name in first.tensors)
    far = sum(float((trained.tensors[name] - first.tensors[name]).norm()) for name in first.tensors)
    assert 0 < near < far
    assert build_tuner(averaged, bench, second).state().equals(second)


def test_an_average_begins_when_the_stage_has() -> None:
    """A tuner may train other tensors in a stage than it was loaded with, as O-LoRA does."""
    parameter = nn.Parameter(torch.tensor([5.0, 5.0]))
    averager = Averager({"w": parameter}, "fixed", weight=0.75)
    with torch.no_grad():
        parameter.copy_(torch.tensor([1.0, 0.0]))  # the stage begins
    walk(averager, parameter, GRADS[:2])
    averager.finish()
    assert parameter.tolist() == [0.375, 0.15625]
