"""LoRA on a language model's matrices, through peft (Hu et al., arXiv 2106.09685)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import nn

from mcit_core.config import Experiment
from mcit_core.models import HasProjector, Model
from mcit_core.tuners import BaseTuner, ParameterGroup, Site

ADAPTER = "default"
#: what the names of the projector's tensors begin with
PROJECTOR = "projector."


class Lora(BaseTuner):
    """A.<site> [r, d_in] and B.<site> [d_out, r]; the layer gains alpha / r * B A, and B starts at zero.

    With `lora.projector_lr` the model's projector too, projector.<name>, at that rate.

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
        self._projector = self._own_projector() if experiment.lora.projector_lr is not None else {}
        self.weights |= {f"{PROJECTOR}{name}": weight for name, weight in self._projector.items()}

    def _own_projector(self) -> dict[str, nn.Parameter]:
        """A copy of the model's. Raises ValueError where it has none."""
        projector = self.model.projector if isinstance(self.model, HasProjector) else None
        if projector is None:
            raise ValueError(
                f"lora.projector_lr: model {self.model.name} has no projector that maps image tokens one by one; leave "
                "it out"
            )
        return {name: self.parameter(weight.detach().clone()) for name, weight in projector.named_parameters()}

    def groups(self, experiment: Experiment) -> list[ParameterGroup]:
        groups = super().groups(experiment)
        if self._projector:
            rest = [weight for name, weight in self.weights.items() if not name.startswith(PROJECTOR)]
            rate = experiment.lora.projector_lr
            assert rate is not None
            groups = [{**groups[0], "params": rest}, {"params": [*self._projector.values()], "lr": rate}]
        return groups

    @contextmanager
    def attached(self) -> Iterator[None]:
        with ExitStack() as stack:
            if self._projector:
                assert isinstance(self.model, HasProjector)
                stack.enter_context(self.model.projecting(self._projector))
            stack.enter_context(self._swapped())
            yield

    @contextmanager
    def _swapped(self) -> Iterator[None]:
        try:
            for parent, name, _, layer in self._swaps:
                setattr(parent, name, layer)
            yield
        finally:
            for parent, name, plain, _ in self._swaps:
                setattr(parent, name, plain)

    def sites(self) -> dict[str, Site]:
        return self._sites
