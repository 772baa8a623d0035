"""One prompt of L tokens in front of the model's input, the same for every row (Lester et al., arXiv 2104.08691)."""

from __future__ import annotations

import torch

from mcit_core.config import Experiment
from mcit_core.models import Batch, Model
from mcit_core.tuners import BaseTuner, Site, TunerInputs


class Prompt(BaseTuner):
    """prompts [L, d], started from random word embeddings."""

    def __init__(self, experiment: Experiment, model: Model) -> None:
        super().__init__(experiment, model)
        pick = torch.randint(model.words, (experiment.prompt.length,), generator=self.generator)
        self.weights = {"prompts": self.parameter(model.word_rows(pick))}
        self.projected = {"prompts": "tokens"}

    def inputs(self, batch: Batch, training: bool) -> TunerInputs:
        front = self.weights["prompts"].expand(len(batch), -1, -1)
        return TunerInputs(front.new_zeros(()), front)

    def sites(self) -> dict[str, Site]:
        """The rows to stay orthogonal to: features and old prompts (PEGP, the prompt's two conditions)."""
        return {"tokens": Site(self.model.entrance, front=True)}
