"""Adapter folders, loaded by peft on models of transformers, against the tuner that they were written of."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import AutoPeftModel, PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText

from mcit_core.config import Experiment
from mcit_core.data.statistics import QueryStatistics
from mcit_core.methods import build_experiment
from mcit_core.models.check import by_hand, examples
from mcit_core.models.hf import HfModel
from mcit_core.models.settings import HfSettings
from mcit_core.peft_folder import check_exportable, write_adapter
from mcit_core.registry import TUNERS
from mcit_core.stages.state import StageState
from mcit_core.tuners import Tuner
from tests.support.tiny_vlms import folder_of

#: peft asks transformers for a name that the latter has given up
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
CASES = (
    ("llava", "lora", {}),
    ("llava", "lora", {"lora.projector_lr": 1e-3, "lora.targets": "all", "lora.alpha": 12}),
    ("llava", "o_lora", {"lora.rank": 4, "lora.alpha": 6}),
    ("qwen2_5_vl", "lora", {"lora.targets": ["q_proj", "down_proj"]}),
    ("instructblip_t5", "lora", {"lora.targets": "all"}),
    ("paligemma", "lora", {"lora.projector_lr": 1e-3}),
)


def model_of(family: str) -> HfModel:
    return HfModel(torch.device("cpu"), HfSettings(path=str(folder_of(family))))


def experiment_of(tuner: str, settings: dict[str, Any]) -> Experiment:
    return build_experiment("mini", "mini", "sequential", ("ground",), 0, {"tuner": tuner, **settings})


def tuner_of(experiment: Experiment, model: HfModel, stages: int) -> Tuner:
    """With weights as after so many stages."""
    width = torch.zeros(model.width)
    made: Tuner = TUNERS.load(experiment.tuner).build(
        experiment, model, QueryStatistics(width, width + 1, width, width + 1)
    )
    generator = torch.Generator().manual_seed(1)
    for _ in range(stages):
        made.begin_stage()
        with torch.no_grad():
            for parameter in made.parameters().values():
                parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return made


def loaded(family: str, network: PeftModel) -> HfModel:
    """The model of a family around a network of peft's."""
    model = model_of(family)
    model.__dict__["network"] = network
    return model


@pytest.mark.parametrize(("family", "tuner", "settings"), CASES)
def test_peft_computes_as_the_tuner_does(family: str, tuner: str, settings: dict[str, Any], tmp_path: Path) -> None:
    model, experiment = model_of(family), experiment_of(tuner, settings)
    made = tuner_of(experiment, model, 2)
    write_adapter(tmp_path, experiment, check_exportable(experiment, model), made.state())
    labels = model.answer_ids(["red", "two green", "a", "blue"])
    with torch.no_grad(), made.attached():
        ours = model.logits(model.read(model.encode(model.prepare(examples(), 0)), None), labels)
    base = AutoModelForImageTextToText.from_pretrained(folder_of(family), dtype=torch.float32)
    theirs = loaded(family, PeftModel.from_pretrained(base, tmp_path).eval())
    plain = model_of(family)
    for i, example in enumerate(examples()):
        real = labels[i] != -100
        expected = by_hand(theirs, example, labels[i][real], [])
        untuned = by_hand(plain, example, labels[i][real], [])
        assert (ours[i][real] - expected).abs().max() < 1e-5 * expected.abs().max()
        assert (untuned - expected).abs().max() > 1e-2 * expected.abs().max()


def test_nothing_in_the_file_is_left_over_or_missing(tmp_path: Path) -> None:
    model, experiment = model_of("llava"), experiment_of("lora", {"lora.projector_lr": 1e-3})
    made = tuner_of(experiment, model, 1)
    write_adapter(tmp_path, experiment, model, made.state())
    network = AutoPeftModel.from_pretrained(tmp_path)
    assert type(network.get_base_model()).__name__ == "LlavaForConditionalGeneration"
    trained = {name: value for name, value in network.state_dict().items() if ".default" in name}
    written = load_file(tmp_path / "adapter_model.safetensors")
    renamed = {re.sub(r"\.default|\.modules_to_save", "", name): value for name, value in trained.items()}
    assert renamed.keys() == written.keys()
    assert all(torch.equal(renamed[name], value) for name, value in written.items())
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"]) == (8, 16)
    assert config["base_model_name_or_path"] == str(folder_of("llava").resolve())


def test_a_merged_model_is_a_plain_folder(tmp_path: Path) -> None:
    """As docs/models.md has it for harnesses that take no adapter."""
    model, experiment = model_of("llava"), experiment_of("lora", {})
    made = tuner_of(experiment, model, 1)
    write_adapter(tmp_path / "adapter", experiment, model, made.state())
    AutoPeftModel.from_pretrained(tmp_path / "adapter").merge_and_unload().save_pretrained(tmp_path / "merged")
    model.processor.save_pretrained(tmp_path / "merged")
    merged = HfModel(torch.device("cpu"), HfSettings(path=str(tmp_path / "merged")))
    example, label = examples()[0], model.answer_ids(["red"])[0]
    with torch.no_grad(), made.attached():
        ours = by_hand(model, example, label, [])
    assert (by_hand(merged, example, label, []) - ours).abs().max() < 1e-5 * ours.abs().max()


def test_what_peft_has_no_form_for_is_refused() -> None:
    with pytest.raises(ValueError, match="tuner prompt_pool, of method sequential, has no form of peft's; lora and"):
        check_exportable(experiment_of("prompt_pool", {}), model_of("llava"))


def test_a_state_of_another_model_is_refused(tmp_path: Path) -> None:
    model, experiment = model_of("llava"), experiment_of("lora", {"lora.projector_lr": 1e-3})
    state = tuner_of(experiment, model, 1).state()
    name = next(name for name in state.tensors if name.startswith("A."))
    site = name.removeprefix("A.")
    more = {"A.layers.9.x": torch.zeros(8, 64), "B.layers.9.x": torch.zeros(64, 8)}
    for tensors, why in (
        ({**state.tensors, name: torch.zeros(8, 3)}, rf"{site}\.weight was \[64, 3\], and it is \[64, 64\] now"),
        ({**state.tensors, **more}, "it is not there now"),
        ({**state.tensors, "projector.linear_1.weight": torch.zeros(2, 2)}, r"linear_1\.weight was \[2, 2\]"),
    ):
        with pytest.raises(ValueError, match=why):
            write_adapter(tmp_path, experiment, model, StageState(tensors))
    assert not (tmp_path / "adapter_model.safetensors").exists()
