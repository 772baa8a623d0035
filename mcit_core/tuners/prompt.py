"""One prompt of L tokens in front of the model's input, the same for every row (Lester et al., arXiv 2104.08691)."""

from __future__ import annotations

import torch
from torch import nn

from mcit_core.config import Experiment
from mcit_core.models import FrozenFeatures, Model
from mcit_core.tuners import BaseTuner, Site, TunerInputs, plain_inputs


class Prompt(BaseTuner):
    """prompts [L, d], started from random word embeddings."""

    def __init__(self, experiment: Experiment, model: Model) -> None:
        super().__init__(experiment, model)
        words = model.word_embeddings.cpu()
        pick = torch.randint(len(words), (experiment.prompt.length,), generator=self.generator)
        self.weights = {"prompts": self.parameter(words[pick])}
        self.projected = {"prompts": "tokens"}
        self._probe = nn.Identity()

    def inputs(self, features: FrozenFeatures, training: bool) -> TunerInputs:
        front = self.weights["prompts"].expand(len(features), -1, -1)
        embedded, mask = plain_inputs(self.model, features, front)
        # the rows to stay orthogonal to: features and old prompts (PEGP, the prompt's two conditions)
        return TunerInputs(self._probe(embedded), mask, embedded.new_zeros(()))

    def sites(self) -> dict[str, Site]:
        return {"tokens": Site(self._probe, front=True)}
