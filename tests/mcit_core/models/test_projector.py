"""`lora.projector_lr`: the projector of a model of transformers trained beside LoRA."""

from __future__ import annotations

import pytest
import torch

from mcit_core.choices import Choice
from mcit_core.config import Value
from mcit_core.data.workbench import Workbench
from mcit_core.methods import build_experiment
from mcit_core.models import check
from mcit_core.models.estimate import estimate, read_step
from mcit_core.models.hf import HfModel
from mcit_core.models.settings import HfSettings
from mcit_core.stages.results import UNTOUCHED
from mcit_core.testing.workbench import small_workbench
from mcit_core.training.sequence import Sequence
from mcit_core.training.step import Learner, fetched, optimizer_of, train_step
from mcit_core.tuners.lora import PROJECTOR, Lora
from tests.support.tiny_vlms import FAMILIES, folder_of

FEW_ROWS: Choice = {"kind": "mini", "train_rows": 16, "validation_rows": 4, "test_rows": 6}
#: families whose projector is the last thing before the language model
TRAINED = {
    "llava",
    "internvl",
    "smolvlm",
    "idefics3",
    "instructblip_t5",
    "instructblip_llama",
    "blip2_t5",
    "blip2_opt",
} | {"paligemma", "paligemma2"}


def laws_of(family: str, **settings: object) -> check.Laws:
    torch.set_num_threads(1)
    folder = str(folder_of(family))
    return check.Laws(HfModel(torch.device("cpu"), HfSettings.model_validate({"path": folder, **settings})))


def lora_on(laws: check.Laws, rate: float | None) -> Lora:
    settings = {"tuner": "lora", "train.lr": 0.01, "lora.projector_lr": rate}
    return Lora(build_experiment("mini", "mini", "sequential_lora", ("attribute",), 0, settings), laws.model)


@pytest.mark.parametrize("family", FAMILIES)
def test_it_trains_and_leaves_the_model_as_it_was_or_says_that_it_cannot(family: str) -> None:
    laws = laws_of(family)
    plain = laws.logits(laws.batch)
    if family not in TRAINED:
        with pytest.raises(ValueError, match=r"lora\.projector_lr: "):
            laws.tuned(lora_on(laws, 0.01))
        return
    before, tuner = check.fingerprint(laws.model), lora_on(laws, 0.01)
    assert (laws.tuned(tuner) - plain).abs().max() < 1e-5  # it begins as the model's own
    mine = {name: value.detach().clone() for name, value in tuner.parameters().items() if name.startswith(PROJECTOR)}
    assert mine
    learner = Learner(laws.model, tuner, optimizer_of(tuner, tuner.experiment), tuner.experiment.train)
    losses = fetched([train_step(learner, laws.batch, laws.labels) for _ in range(5)])
    assert losses[-1] < losses[0]
    weights = [name for name in mine if name.endswith("weight")]
    assert all(not torch.equal(mine[name], tuner.parameters()[name]) for name in weights)
    assert check.fingerprint(laws.model) == before
    assert torch.equal(laws.logits(laws.batch), plain)
    other = lora_on(laws, 0.01)
    other.load(tuner.state())
    assert torch.equal(laws.tuned(tuner), laws.tuned(other))


def test_it_has_a_rate_of_its_own() -> None:
    tuner = lora_on(laws_of("llava"), 0.5)
    first, second = tuner.groups(tuner.experiment)
    assert (first["lr"], second["lr"]) == (0.01, 0.5)
    assert len(first["params"]) + len(second["params"]) == len(tuner.parameters())
    assert len(second["params"]) == 4  # two matrices and their biases


def test_its_gradient_is_that_of_the_network_itself() -> None:
    """One row from pixels through the network's own forward, its projector's weights asking for gradients."""
    laws = laws_of("llava")
    tuner = lora_on(laws, 0.01)
    label = laws.labels[0][laws.labels[0] != -100]
    batch = laws.model.encode(laws.model.prepare(laws.examples[:1], 0))
    with tuner.attached():
        logits = laws.model.logits(laws.model.read(batch, None), label[None])[0]
        torch.nn.functional.cross_entropy(logits.float(), label).backward()
    projector = laws.model.projector
    assert projector is not None
    projector.requires_grad_(True)
    try:
        told = check.by_hand.__wrapped__(laws.model, laws.examples[0], label, [])  # type: ignore[attr-defined]
        torch.nn.functional.cross_entropy(told, label).backward()
        for name, weight in projector.named_parameters():
            mine = tuner.parameters()[f"{PROJECTOR}{name}"].grad
            assert mine is not None
            assert weight.grad is not None
            assert (mine - weight.grad).abs().max() <= 1e-5 * weight.grad.abs().max(), name
    finally:
        projector.requires_grad_(False).zero_grad()


def test_it_trains_where_layers_are_computed_again_and_in_half_precision() -> None:
    for settings in ({"checkpointing": True}, {"dtype": "bfloat16"}):
        laws = laws_of("llava", **settings)
        tuner = lora_on(laws, 0.01)
        learner = Learner(laws.model, tuner, optimizer_of(tuner, tuner.experiment), tuner.experiment.train)
        losses = fetched([train_step(learner, laws.batch, laws.labels) for _ in range(5)])
        assert losses[-1] < losses[0], settings
        assert all(value.dtype == torch.float32 for value in tuner.parameters().values())


def test_a_model_without_one_says_so() -> None:
    experiment = build_experiment("mini", "mini", "sequential_lora", ("attribute",), 0, {"lora.projector_lr": 0.1})
    with pytest.raises(ValueError, match=r"lora\.projector_lr: model mini has no projector"):
        Lora(experiment, small_workbench().model)


def test_pegp_refuses_it() -> None:
    with pytest.raises(ValueError, match="no basis is kept for a projector"):
        build_experiment("mini", "mini", "pegp_lora", ("attribute",), 0, {"lora.projector_lr": 0.1})


@pytest.mark.parametrize("preset", ["llaca", "er", "ewc", "lwf"])
def test_two_stages_of_a_method_with_it(preset: str) -> None:
    choice: Choice = {"kind": "hf", "path": str(folder_of("llava"))}
    settings: dict[str, Value] = {"train.steps": 2, "train.batch_size": 4, "lora.projector_lr": 0.01}
    experiment = build_experiment(FEW_ROWS, choice, preset, ("attribute", "ground"), 0, settings)
    results = list(Sequence(experiment, Workbench(FEW_ROWS, choice, "cpu", None)))
    assert [result.stage for result in results] == [UNTOUCHED, 0, 1]


def test_the_estimate_counts_it() -> None:
    settings = HfSettings(path=str(folder_of("llava")))
    alone, beside = (
        estimate(settings, read_step(f"batch=4,length=60,tuner=lora{more}")) for more in ("", ",lora.projector_lr=1e-3")
    )
    projector = laws_of("llava").model.projector
    assert projector is not None
    assert beside.trained - alone.trained == sum(weight.numel() for weight in projector.parameters())
