"""Fwd-Prompt's prompt pool: the K prompts nearest to image AND instruction go in front of the model's input.

Source: Zheng et al., arXiv 2401.09181 (pool, joint selection); score, pull term and starting values are a
reconstruction after L2P (Wang et al., CVPR 2022).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mcit_core.config import Experiment
from mcit_core.data.statistics import QueryStatistics
from mcit_core.models import Batch, Model
from mcit_core.stages.state import StageState
from mcit_core.tuners import BaseTuner, ParameterGroup, Site, TunerInputs


class PromptPool(BaseTuner):
    """prompts [M, L, d], image keys [M, d_v], text keys [M, d_t]; `usage` [stages, M] counts training selections."""

    @classmethod
    def build(cls, experiment: Experiment, model: Model, queries: QueryStatistics) -> PromptPool:
        return cls(experiment, model, queries)

    def __init__(self, experiment: Experiment, model: Model, queries: QueryStatistics) -> None:
        super().__init__(experiment, model)
        pool = self.config = experiment.pool
        self.queries = queries
        pick = torch.randint(model.words, (pool.size, pool.length), generator=self.generator)

        def keys(width: int) -> nn.Parameter:
            return self.parameter(torch.randn(pool.size, width, generator=self.generator))

        self.prompts = self.parameter(model.word_rows(pick))
        self.image_keys, self.text_keys = keys(model.query_image_width), keys(model.query_text_width)
        self.weights = {"prompts": self.prompts, "image_keys": self.image_keys, "text_keys": self.text_keys}
        self.projected = {"prompts": "tokens"}
        self.usage = torch.zeros(0, pool.size)
        self._counts = torch.zeros(pool.size, device=model.device)
        self._claimed = torch.zeros(pool.size, dtype=torch.bool, device=model.device)
        self._freezes = False

    def groups(self, experiment: Experiment) -> list[ParameterGroup]:
        return [
            {"params": [self.prompts], "lr": experiment.train.lr},
            {"params": [self.image_keys, self.text_keys], "lr": self.config.key_lr},
        ]

    def begin_stage(self) -> None:
        self._counts = torch.zeros(self.config.size, device=self.model.device)
        if self.config.reuse != "share" and len(self.usage):
            shares = self.usage / self.usage.sum(1, keepdim=True)
            self._claimed = (shares > self.config.claim_share).any(0).to(self.model.device)
        self._freezes = self.config.reuse == "freeze" and bool(self._claimed.any())

    def frozen_rows(self, name: str) -> Tensor | None:
        """Rows that this stage must leave as they are: claimed prompts and their keys under `reuse: freeze`."""
        return self._claimed if self._freezes else None

    def key_queries(self, batch: Batch) -> dict[str, Tensor]:
        """Name of the keys -> what they are compared with, [N, width]."""
        image, text, q = batch.query_image, batch.query_text, self.queries
        if self.config.standardise:
            image, text = (image - q.image_mean) / q.image_std, (text - q.text_mean) / q.text_std
        return {"image_keys": image, "text_keys": text}

    def scores(self, batch: Batch) -> Tensor:
        """w cos(q_v, a_j) + (1 - w) cos(q_t, b_j): [N, M]."""
        queries, w = self.key_queries(batch), self.config.image_weight
        return (
            w * F.normalize(queries["image_keys"], dim=-1) @ F.normalize(self.image_keys, dim=-1).T
            + (1 - w) * F.normalize(queries["text_keys"], dim=-1) @ F.normalize(self.text_keys, dim=-1).T
        )

    def inputs(self, batch: Batch, training: bool) -> TunerInputs:
        """The chosen prompts in pool order, [N, K·L, d]."""
        scores = self.scores(batch)
        ranked = scores - self.config.reuse_penalty * self._claimed if training else scores
        chosen = ranked.topk(self.config.top_k, dim=1).indices.sort(dim=1).values
        if training:
            # bincount would have the CPU wait for a GPU
            self._counts.index_add_(0, chosen.flatten(), torch.ones_like(chosen.flatten(), dtype=torch.float32))
        pull = self.config.pull * (1 - scores.gather(1, chosen)).mean()
        # embedding: on a GPU the gradient of an index is summed in an order that no two runs share
        front = F.embedding(chosen, self.prompts.flatten(1)).view(len(chosen), -1, self.prompts.shape[-1])
        return TunerInputs(pull, front, chosen)

    def sites(self) -> dict[str, Site]:
        return {"tokens": Site(self.model.entrance, front=True)}

    def counted_rows(self) -> list[Tensor]:
        return [self._counts]

    def end_stage(self) -> dict[str, float]:
        counts = self._counts.cpu()
        self.usage = torch.cat([self.usage, counts[None]])
        shares = counts / counts.sum()
        entropy = torch.special.entr(shares).sum().exp().item()
        return {"pool/effective_prompts": entropy, "pool/claimed_before": float(self._claimed.sum())}

    def state(self) -> StageState:
        return StageState({**super().state().tensors, "usage": self.usage.clone()})

    def load(self, state: StageState) -> None:
        super().load(state)
        self.usage = state.tensors["usage"].clone()
