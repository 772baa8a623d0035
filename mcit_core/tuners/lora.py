"""LoRA on a language model's matrices, through peft (Hu et al., arXiv 2106.09685)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import nn

from mcit_core.config import Experiment
from mcit_core.models import Model
from mcit_core.tuners import BaseTuner, Site

ADAPTER = "default"


class Lora(BaseTuner):
    """A.<site> [r, d_in] and B.<site> [d_out, r]; the layer gains alpha / r * B A, and B starts at zero.

    PEGP's conditions: ΔA x = 0 for the layer's inputs x, ΔB y = 0 for y = A x.
    """

    def __init__(self, experiment: Experiment, model: Model) -> None:
        super().__init__(experiment, model)
        sites = model.linear_sites(experiment.lora.targets)
        config = LoraConfig(
            r=experiment.lora.rank, lora_alpha=experiment.lora.alpha, lora_dropout=0.0, target_modules=list(sites)
        )
        inject_adapter_in_model(config, model.language_model, ADAPTER)
        del model.language_model.peft_config  # the model is shared; it keeps no trace of a tuner
        self._swaps: list[tuple[nn.Module, str, nn.Module, nn.Module]] = []  # parent, name, plain layer, peft's layer
        self._sites: dict[str, Site] = {}
        for site, side in sites.items():
            parent_name, _, name = site.rpartition(".")
            parent = model.language_model.get_submodule(parent_name)
            layer = parent.get_submodule(name)
            self._swaps.append((parent, name, layer.base_layer, layer))
            setattr(parent, name, layer.base_layer)
            down, up = (matrix[ADAPTER].float() for matrix in (layer.lora_A, layer.lora_B))  # whatever the layer is
            with torch.no_grad():  # peft draws from the global generator; nothing here may
                bound = 1 / math.sqrt(down.in_features)
                down.weight.copy_((2 * torch.rand(down.weight.shape, generator=self.generator) - 1) * bound)
                up.weight.zero_()
            for matrix, module in (("A", down), ("B", up)):
                self.weights[f"{matrix}.{site}"] = module.weight.requires_grad_(True)
                self.projected[f"{matrix}.{site}"] = f"{matrix}.{site}"
                self._sites[f"{matrix}.{site}"] = Site(module, side)

    @contextmanager
    def attached(self) -> Iterator[None]:
        try:
            for parent, name, _, layer in self._swaps:
                setattr(parent, name, layer)
            yield
        finally:
            for parent, name, plain, _ in self._swaps:
                setattr(parent, name, plain)

    def sites(self) -> dict[str, Site]:
        return self._sites
