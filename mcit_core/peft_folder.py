"""A stage's low-rank weights as an adapter folder of peft, which whoever has the model can load.

The layer gains alpha / r * B A with peft as with our tuners. Of O-LoRA, which adds a pair for every stage, the pairs
are stacked to one of their ranks' sum, which is the same matrix.
"""

from __future__ import annotations

from pathlib import Path

import torch
from peft import LoraConfig
from safetensors.torch import save
from torch import Tensor, nn
from transformers import AutoModelForImageTextToText

from mcit_core.config import Experiment
from mcit_core.models import Model
from mcit_core.models.hf import HfModel
from mcit_core.models.hf_sites import language_model
from mcit_core.stages.state import StageState
from mcit_core.tuners.lora import PROJECTOR

#: tuners whose weights have a form of peft's
TUNERS = ("lora", "o_lora")


def low_rank_pairs(state: StageState) -> dict[str, tuple[Tensor, Tensor]]:
    """Site in the language model -> A [r, d_in] and B [d_out, r] of all that a stage's state adds there."""
    tensors = state.tensors
    found = {}
    for site in (name.removeprefix("A.") for name in tensors if name.startswith("A.")):
        down, up = (
            [tensors[name] for name in (f"past_{matrix}.{site}", f"{matrix}.{site}") if name in tensors]
            for matrix in "AB"
        )
        found[site] = torch.cat(down), torch.cat(up, 1)
    return found


def check_exportable(experiment: Experiment, model: Model) -> HfModel:
    """The model, which has a form that peft reads. Raises ValueError where it or the tuner has none."""
    if experiment.tuner not in TUNERS:
        raise ValueError(
            f"tuner {experiment.tuner}, of method {experiment.method}, has no form of peft's; {' and '.join(TUNERS)} "
            "have"
        )
    if not isinstance(model, HfModel):
        raise ValueError(f"model {model.name} is no folder that peft could load an adapter on; `hf` and `smol` are")
    return model


def write_adapter(folder: Path, experiment: Experiment, model: HfModel, state: StageState) -> None:
    """adapter_config.json and adapter_model.safetensors in `folder`, whose numbers are float32. The network is made on
    the meta device, for its names: no weights are read. Raises ValueError where the state does not fit it."""
    with torch.device("meta"):
        network = AutoModelForImageTextToText.from_config(model.config)
    stack = _path(network, language_model(network, model.encoder_decoder))
    pairs = low_rank_pairs(state)
    tensors: dict[str, Tensor] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    for site, (down, up) in pairs.items():
        tensors |= {f"{stack}.{site}.lora_A.weight": down, f"{stack}.{site}.lora_B.weight": up}
        shapes[f"{stack}.{site}.weight"] = (len(up), down.shape[1])
    own = {name.removeprefix(PROJECTOR): value for name, value in state.tensors.items() if name.startswith(PROJECTOR)}
    projector = _path(network, model.family.projector(network)) if own else None
    tensors |= {f"{projector}.{name}": value for name, value in own.items()}
    shapes |= {f"{projector}.{name}": tuple(value.shape) for name, value in own.items()}
    _check_fit(model, network, shapes)
    rank = len(next(iter(pairs.values()))[0])
    config = LoraConfig(
        r=rank,
        lora_alpha=experiment.lora.alpha * rank // experiment.lora.rank,  # a whole number of ranks is stacked
        target_modules=[f"{stack}.{site}" for site in pairs],
        modules_to_save=None if projector is None else [projector],
        base_model_name_or_path=str(model.folder.resolve()) if _is_folder(model.settings.path) else model.settings.path,
        revision=model.settings.revision,
        auto_mapping={"base_model_class": type(network).__name__, "parent_library": type(network).__module__},
        inference_mode=True,
    )
    config.save_pretrained(str(folder))
    named = {f"base_model.model.{name}": value.detach().cpu().contiguous() for name, value in tensors.items()}
    (folder / "adapter_model.safetensors").write_bytes(save(named, metadata={"format": "pt"}))


def _check_fit(model: HfModel, network: nn.Module, shapes: dict[str, tuple[int, ...]]) -> None:
    """Raises ValueError where the network has not what these weights change."""
    there = {name: tuple(weight.shape) for name, weight in network.named_parameters()}
    for name, shape in shapes.items():
        if there.get(name) != shape:
            has = f"it is {list(there[name])}" if name in there else "it is not there"
            raise ValueError(
                f"{model.folder} is not the model that was trained: {name} was {list(shape)}, and {has} now"
            )


def _is_folder(path: str) -> bool:
    """Or else it is the hub's name of a model."""
    return Path(path).expanduser().is_dir()


def _path(network: nn.Module, module: object) -> str:
    return next(name for name, found in network.named_modules() if found is module)
