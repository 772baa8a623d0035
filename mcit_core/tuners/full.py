"""Full fine-tuning of the language model; vision tower, Q-Former and word embeddings stay frozen, as the features that
are computed once rest on them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from mcit_core.config import Experiment
from mcit_core.models import Model
from mcit_core.tuners import BaseTuner


class Full(BaseTuner):
    """A copy of every weight of the language model but its word embeddings; the model's own are put back afterwards."""

    def __init__(self, experiment: Experiment, model: Model) -> None:
        super().__init__(experiment, model)
        embeddings = {id(weight) for weight in model.language_model.get_input_embeddings().parameters()}
        self._places: list[tuple[nn.Module, str, nn.Parameter, nn.Parameter]] = []  # module, name, model's, mine
        mine: dict[int, nn.Parameter] = {}  # a weight that stands in two places is trained once
        for path, module in model.language_model.named_modules():
            for name, weight in module.named_parameters(recurse=False):
                if id(weight) in embeddings:
                    continue
                if id(weight) not in mine:
                    mine[id(weight)] = self.weights[f"{path}.{name}"] = self.parameter(weight.detach().clone())
                self._places.append((module, name, weight, mine[id(weight)]))

    @contextmanager
    def attached(self) -> Iterator[None]:
        try:
            for module, name, _, mine in self._places:
                setattr(module, name, mine)
            yield
        finally:
            for module, name, original, _ in self._places:
                setattr(module, name, original)
