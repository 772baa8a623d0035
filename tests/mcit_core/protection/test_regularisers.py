"""EWC and LwF: the terms by hand, the Fisher information row by row, and what is carried from stage to stage."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mcit_core.config import Experiment
from mcit_core.data.features import Rows
from mcit_core.data.workbench import Workbench
from mcit_core.methods import build_experiment
from mcit_core.protection import StageStart
from mcit_core.protection.ewc import Ewc, EwcSettings, log_likelihood
from mcit_core.protection.importance import importance
from mcit_core.protection.lwf import Lwf, LwfSettings
from mcit_core.protection.mas import Mas, MasSettings, output_size
from mcit_core.training.stage import build_tuner, train_stage
from mcit_core.tuners import Tuner

ORDER = ("attribute", "ground", "bars")


def experiment(**settings: object) -> Experiment:
    base = {"train.steps": 3, "train.batch_size": 8}
    if settings.get("regulariser.kind") == "ewc":
        base["regulariser.samples"] = 5
    return build_experiment("tiny", "mini", "sequential_lora", ORDER, 0, {**base, **settings})


def fisher(bench: Workbench, tuner: Tuner, rows: Rows, samples: int) -> dict[str, Tensor]:
    return importance(bench.model, tuner, rows, samples, log_likelihood, torch.square)


def start(bench: Workbench, tuner: Tuner) -> StageStart:
    """The second stage as it begins, after one on the first task left `tuner`."""
    return StageStart(experiment(), bench, 1, ORDER[1], ORDER[:1], tuner, tuner.state(), lambda: tuner)


@pytest.fixture(scope="module")
def trained(bench: Workbench) -> Tuner:
    state, _ = train_stage(experiment(), bench, 0, None)
    return build_tuner(experiment(), bench, state)


def test_the_fisher_information_is_the_mean_square_of_single_rows(bench: Workbench, trained: Tuner) -> None:
    rows = bench.rows("attribute", "train")
    found = fisher(bench, trained, rows, 5)
    parameters = trained.parameters()
    wanted = {name: torch.zeros_like(p) for name, p in parameters.items()}
    of_batch = {name: torch.zeros_like(p) for name, p in parameters.items()}
    for i in range(5):
        for parameter in parameters.values():
            parameter.grad = None
        with trained.attached():
            features = rows[torch.tensor([i])]
            inputs = trained.inputs(features, training=False)
            logits = bench.model.logits(bench.model.read(features, inputs.front), rows.labels[i : i + 1])
        answer = rows.labels[i][rows.labels[i] != -100]
        likelihood = sum(F.log_softmax(logits[0, t], -1)[token] for t, token in enumerate(answer))
        torch.as_tensor(likelihood).backward()
        for name, parameter in parameters.items():
            assert parameter.grad is not None
            wanted[name] += parameter.grad.square() / 5
            of_batch[name] += parameter.grad / 5
    for name, value in found.items():
        assert torch.allclose(value, wanted[name], rtol=1e-3, atol=1e-6 * float(wanted[name].max())), name
        assert (value >= 0).all()
    assert any(not torch.allclose(found[name], of_batch[name].square(), rtol=0.1) for name in found)
    for parameter in parameters.values():
        parameter.grad = None


def test_more_rows_than_there_are_is_all_of_them(bench: Workbench, trained: Tuner) -> None:
    rows = bench.rows("attribute", "train")
    few, many = (fisher(bench, trained, rows, n) for n in (len(rows), 10 * len(rows)))
    assert all(torch.equal(few[name], many[name]) for name in few)


def test_ewc_by_hand(bench: Workbench, trained: Tuner) -> None:
    term = Ewc(EwcSettings(strength=3.0, samples=1), start(bench, trained))
    term.anchor = {"w": torch.tensor([1.0, -2.0]), "v": torch.tensor([0.5])}
    term.importance = {"w": torch.tensor([2.0, 0.0]), "v": torch.tensor([4.0])}
    parameters = {"w": nn.Parameter(torch.tensor([2.0, 9.0])), "v": nn.Parameter(torch.tensor([1.0]))}
    loss = term.loss(parameters, torch.empty(0), torch.empty(0))
    # 3 / 2 * (2 * 1² + 0 * 11² + 4 * 0.5²) = 4.5
    assert loss.item() == pytest.approx(4.5)
    loss.backward()  # type: ignore[no-untyped-call]
    grads = [p.grad for p in parameters.values()]
    assert grads[0] is not None
    assert grads[0].tolist() == [6.0, 0.0]


def test_ewc_is_zero_where_the_stage_began_and_pulls_back_from_elsewhere(bench: Workbench, trained: Tuner) -> None:
    term = Ewc(EwcSettings(samples=3), start(bench, trained))
    parameters = trained.parameters()
    begun = {name: p.detach().clone() for name, p in parameters.items()}
    nothing = torch.empty(0)
    assert term.loss(parameters, nothing, nothing).item() == 0
    with torch.no_grad():
        for p in parameters.values():
            p.add_(0.1)
    moved = term.loss(parameters, nothing, nothing)
    with torch.no_grad():
        for name, p in parameters.items():
            p.copy_(begun[name])
    wanted = sum(0.1**2 * float(value.sum()) for value in term.importance.values()) / 2
    assert moved.item() == pytest.approx(wanted, rel=1e-3)
    assert wanted > 0


def test_the_fisher_information_is_summed_over_stages(bench: Workbench) -> None:
    config = experiment(**{"regulariser.kind": "ewc"})
    first, _ = train_stage(config, bench, 0, None)
    second, _ = train_stage(config, bench, 1, first)
    third, _ = train_stage(config, bench, 2, second)
    assert not any(name.startswith("fisher.") for name in first.tensors)  # made when it is needed
    carried = [name for name in second.tensors if name.startswith("fisher.")]
    assert len(carried) == len(first.tensors)
    own = fisher(bench, build_tuner(config, bench, second), bench.rows(ORDER[1], "train"), 5)
    for name in carried:
        wanted = second.tensors[name] + own[name.removeprefix("fisher.")]
        assert torch.equal(third.tensors[name], wanted), name


def test_ewc_keeps_the_weights_nearer(bench: Workbench) -> None:
    first, _ = train_stage(experiment(), bench, 0, None)
    moved = []
    for strength in (0.0, 1e4):
        config = experiment(**{"regulariser.kind": "ewc", "regulariser.strength": strength})
        second, _ = train_stage(config, bench, 1, first)
        fishers = {name: second.tensors[f"fisher.{name}"] for name in first.tensors}
        moved.append(sum(float((fishers[n] * (second.tensors[n] - first.tensors[n]).square()).sum()) for n in fishers))
    assert moved[1] < moved[0]


def divergence(teacher: Tensor, student: Tensor, temperature: float) -> float:
    """KL(teacher ‖ student) of two rows of logits, written out."""
    p = [math.exp(x / temperature) for x in teacher.tolist()]
    q = [math.exp(x / temperature) for x in student.tolist()]
    p, q = [x / sum(p) for x in p], [x / sum(q) for x in q]
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


def test_lwf_by_hand(bench: Workbench, trained: Tuner) -> None:
    term = Lwf(LwfSettings(strength=0.5, temperature=2.0), start(bench, trained))
    teacher = torch.tensor([[[1.0, 0.0, -1.0], [2.0, 2.0, 0.0], [9.0, 0.0, 0.0]]])
    student = torch.tensor([[[0.0, 0.0, 1.0], [1.0, 2.0, 0.0], [0.0, 9.0, 0.0]]])
    labels = torch.tensor([[1, 2, -100]])  # the third token is padding
    term._wanted = teacher
    wanted = 0.5 * 4 * sum(divergence(teacher[0, t], student[0, t], 2.0) for t in range(2)) / 2
    assert term.loss({}, student, labels).item() == pytest.approx(wanted, rel=1e-5)


def test_lwf_is_zero_where_student_and_teacher_agree(bench: Workbench, trained: Tuner) -> None:
    term = Lwf(LwfSettings(), start(bench, trained))
    rows = bench.rows("ground", "train")
    index = torch.arange(6)
    term.before_forward(rows[index], rows.labels[index])
    assert term._wanted is not None
    logits = term._wanted.clone().requires_grad_()
    loss = term.loss({}, logits, rows.labels[index])
    assert loss.item() == pytest.approx(0, abs=1e-6)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert gradient.abs().max() < 1e-6
    assert term.loss({}, logits + torch.randn(logits.shape, generator=torch.manual_seed(0)), rows.labels[index]) > 0


def test_lwfs_teacher_stands_still_while_the_student_trains(bench: Workbench) -> None:
    """A teacher that shared tensors with the student would make the term zero at every step."""
    first, _ = train_stage(experiment(), bench, 0, None)
    weak, strong = (
        train_stage(experiment(**{"regulariser.kind": "lwf", "regulariser.strength": s}), bench, 1, first)[0]
        for s in (0.0, 100.0)
    )
    assert weak.equals(train_stage(experiment(), bench, 1, first)[0])
    assert not strong.equals(weak)


def mas(bench: Workbench, trained: Tuner, samples: int = 3, strength: float = 1.0) -> Mas:
    return Mas(MasSettings(samples=samples, strength=strength), start(bench, trained))


def test_mas_by_hand(bench: Workbench, trained: Tuner) -> None:
    term = mas(bench, trained, samples=1, strength=3.0)
    term.anchor = {"w": torch.tensor([1.0, -2.0]), "v": torch.tensor([0.5])}
    term.importance = {"w": torch.tensor([2.0, 0.0]), "v": torch.tensor([4.0])}
    parameters = {"w": nn.Parameter(torch.tensor([2.0, 9.0])), "v": nn.Parameter(torch.tensor([1.0]))}
    loss = term.loss(parameters, torch.empty(0), torch.empty(0))
    # 3 * (2 * 1² + 0 * 11² + 4 * 0.5²) = 9
    assert loss.item() == pytest.approx(9.0)


def test_the_importance_is_the_mean_absolute_gradient_of_the_squared_length(bench: Workbench, trained: Tuner) -> None:
    found = mas(bench, trained).importance
    rows, parameters = bench.rows(ORDER[0], "train"), trained.parameters()
    wanted = {name: torch.zeros_like(p) for name, p in parameters.items()}
    for i in range(3):
        with trained.attached():
            features = rows[torch.tensor([i])]
            inputs = trained.inputs(features, training=False)
            logits = bench.model.logits(bench.model.read(features, inputs.front), rows.labels[i : i + 1])
        length = sum((logits[0, t] ** 2).sum() for t in range(int((rows.labels[i] != -100).sum())))
        gradients = torch.autograd.grad(torch.as_tensor(length), list(parameters.values()))
        for name, gradient in zip(parameters, gradients, strict=True):
            wanted[name] += gradient.abs() / 3
    for name, value in found.items():
        assert torch.allclose(value, wanted[name], rtol=1e-4, atol=1e-6 * float(wanted[name].max())), name
        assert (value >= 0).all()


def test_mas_needs_no_right_answers(bench: Workbench, trained: Tuner) -> None:
    """Which of the tokens are right does not enter: the same logits under other labels have the same length."""
    logits = torch.randn(1, 3, 7, generator=torch.manual_seed(0))
    labels = torch.tensor([[1, 2, -100]])
    assert output_size(logits, labels) == output_size(logits, torch.tensor([[6, 0, -100]]))
    assert output_size(logits, labels) == pytest.approx(float(logits[0, :2].square().sum()))


def test_mas_is_summed_over_stages_and_keeps_the_weights_nearer(bench: Workbench) -> None:
    first, _ = train_stage(experiment(), bench, 0, None)
    moved = []
    for strength in (0.0, 10.0):
        config = experiment(**{"regulariser.kind": "mas", "regulariser.strength": strength, "regulariser.samples": 4})
        second, _ = train_stage(config, bench, 1, first)
        third, _ = train_stage(config, bench, 2, second)
        omegas = {name: second.tensors[f"omega.{name}"] for name in first.tensors}
        assert all((third.tensors[f"omega.{name}"] >= omega).all() for name, omega in omegas.items())
        assert any((third.tensors[f"omega.{name}"] > omega).any() for name, omega in omegas.items())
        moved.append(sum(float((omegas[n] * (second.tensors[n] - first.tensors[n]).square()).sum()) for n in omegas))
    assert moved[1] < moved[0]
