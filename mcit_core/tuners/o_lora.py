"""O-LoRA: a LoRA a stage; earlier ones are frozen and added, and the new one is pushed orthogonal to them.

Source: Wang et al., arXiv 2310.14152: loss (the sum of |A_i Aᵀ| over earlier stages i) and sum of all updates.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn

from mcit_core.config import Experiment
from mcit_core.models import Batch, Model
from mcit_core.stages.state import StageState
from mcit_core.tuners import BaseTuner, TunerInputs


class OLora(BaseTuner):
    """A.<site> [r, d_in], B.<site> [d_out, r] of this stage; past_A.<site> [r t, d_in], past_B.<site> [d_out, r t]."""

    def __init__(self, experiment: Experiment, model: Model) -> None:
        super().__init__(experiment, model)
        self.scale = experiment.lora.alpha / experiment.lora.rank
        self._layers = {
            site: model.language_model.get_submodule(site) for site in model.linear_sites(experiment.lora.targets)
        }
        self.past: dict[str, Tensor] = {}
        for site in self._layers:
            self.weights[f"A.{site}"] = self.parameter(self._start(site))
            out = self._layers[site].get_parameter("weight").shape[0]
            self.weights[f"B.{site}"] = self.parameter(torch.zeros(out, experiment.lora.rank))

    def _start(self, site: str) -> Tensor:
        width = self._layers[site].get_parameter("weight").shape[1]
        shape = (self.experiment.lora.rank, width)
        return (2 * torch.rand(shape, generator=self.generator) - 1) / math.sqrt(width)

    def begin_stage(self) -> None:
        """Freeze what is trained so far and start a new pair; at the first stage there is nothing yet."""
        if not any(parameter.any() for name, parameter in self.weights.items() if name.startswith("B.")):
            return
        with torch.no_grad():
            self.past = {
                f"past_{name}": torch.cat(
                    [*([self.past[f"past_{name}"]] if self.past else []), parameter.detach()],
                    0 if name.startswith("A.") else 1,
                )
                for name, parameter in self.weights.items()
            }
            stages = len(next(iter(self.past.values()))) // self.experiment.lora.rank
            for _ in range(stages):  # the start of stage t is draw t, wherever the earlier ones ran
                starts = {site: self._start(site) for site in self._layers}
            for site, start in starts.items():
                self.weights[f"A.{site}"].copy_(start)
                self.weights[f"B.{site}"].zero_()

    @contextmanager
    def attached(self) -> Iterator[None]:
        with ExitStack() as stack:
            for site, layer in self._layers.items():

                def add(_layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor, site: str = site) -> Tensor:
                    down: Tensor = self.weights[f"A.{site}"]
                    up: Tensor = self.weights[f"B.{site}"]
                    if self.past:
                        down = torch.cat([self.past[f"past_A.{site}"], down])
                        up = torch.cat([self.past[f"past_B.{site}"], up], 1)
                    return output + self.scale * (inputs[0] @ down.T @ up.T)

                stack.callback(layer.register_forward_hook(add).remove)
            yield

    def inputs(self, batch: Batch, training: bool) -> TunerInputs:
        made = super().inputs(batch, training)
        if not training or not self.past:
            return made
        overlap = sum((self.past[f"past_A.{s}"] @ self.weights[f"A.{s}"].T).abs().sum() for s in self._layers)
        extra = self.experiment.lora.orthogonality * torch.as_tensor(overlap)
        return TunerInputs(made.extra_loss + extra)

    def state(self) -> StageState:
        return StageState({**super().state().tensors, **{name: value.clone() for name, value in self.past.items()}})

    def load(self, state: StageState) -> None:
        super().load(state)
        device = self.model.device
        self.past = {name: v.clone().to(device) for name, v in state.tensors.items() if name.startswith("past_")}
