"""The Model contract: a frozen vision-language model seen from the side of a tuner.

A model offers `instruction_length(instructions)`, `encode(images, instructions, length) -> FrozenFeatures` (cacheable;
instructions padded to `length` tokens), `embeddings(ids)`, `answer_ids(answers)`,
`encoder(embedded, mask) -> Encoded`, `logits(encoded, labels)`, `generate(encoded)`, `pretraining_table(purpose)` with
purpose "statistics" or "retention", `word_embeddings`, and the facts `name`, `digest`, `width`, `query_image_width`,
`query_text_width`. For tuners that work inside, it names the places of its `language_model`: `linear_sites()` (LoRA),
`block_sites()` (adapters) and `attention_sites()` (prefixes). Register one in `mcit_core.registry` or through the
entry-point group `mcit_core.models`.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Literal, Protocol

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class FrozenFeatures:
    """What the frozen part says of N rows."""

    visual: Tensor  # [N, Q, d] projected visual tokens
    instruction: Tensor  # [N, n] token ids
    instruction_mask: Tensor  # [N, n]
    query_image: Tensor  # [N, d_v] pooled image feature
    query_text: Tensor  # [N, d_t] mean instruction embedding

    def __getitem__(self, index: Tensor) -> FrozenFeatures:
        return FrozenFeatures(*(getattr(self, f.name)[index] for f in fields(self)))

    def __len__(self) -> int:
        return len(self.visual)


@dataclass(frozen=True)
class Encoded:
    hidden: Tensor  # [N, n, d]
    mask: Tensor  # [N, n]

    def __getitem__(self, index: Tensor) -> Encoded:
        return Encoded(self.hidden[index], self.mask[index])


#: whose padding counts at a place: that of the model's input or that of the answer
Side = Literal["encoder", "decoder"]


@dataclass(frozen=True)
class AttentionSite:
    """A self-attention of H heads of width w that calls transformers' attention interface under `implementation`."""

    module: nn.Module
    heads: int
    width: int
    implementation: str


class Model(Protocol):
    name: str
    digest: str
    device: torch.device
    width: int
    query_image_width: int
    query_text_width: int

    @property
    def word_embeddings(self) -> Tensor: ...
    def instruction_length(self, instructions: list[str]) -> int: ...
    def encode(self, images: np.ndarray, instructions: list[str], length: int) -> FrozenFeatures: ...
    def embeddings(self, ids: Tensor) -> Tensor: ...
    def answer_ids(self, answers: list[str]) -> Tensor: ...
    def encoder(self, embedded: Tensor, mask: Tensor) -> Encoded: ...
    def logits(self, encoded: Encoded, labels: Tensor) -> Tensor: ...
    def generate(self, encoded: Encoded) -> list[str]: ...
    def pretraining_table(self, purpose: str) -> pa.Table: ...
    @property
    def language_model(self) -> Any: ...
    def linear_sites(self) -> dict[str, Side]: ...
    def block_sites(self) -> dict[str, tuple[nn.Module, Side]]: ...
    def attention_sites(self) -> dict[str, AttentionSite]: ...
