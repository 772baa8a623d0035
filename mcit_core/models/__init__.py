"""The Model contract: a frozen vision-language model seen from the side of a tuner.

Register one in `mcit_core.registry` or through the entry-point group `mcit_core.models`. It is made for a device; one
with settings of its own (`model: {kind: NAME, ...}`) has a pydantic section as its attribute `Settings` (or names it in
its registry line, so that files are checked without loading it) and takes `settings=`, an instance of it, where any is
set. Importing this file loads no torch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

from mcit_core.choices import Choice, kind_of, part_settings
from mcit_core.registry import MODELS

if TYPE_CHECKING:  # so that a model's settings can be read without loading torch
    import numpy as np
    import pyarrow as pa
    import torch
    from torch import Tensor, nn
    from transformers import PreTrainedModel


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
    """A self-attention of H heads of width w that calls transformers' attention interface under `implementation`.
    `groups`: how many keys and values it has, each for H / groups of the queries' heads; None for H."""

    module: nn.Module
    heads: int
    width: int
    implementation: str
    groups: int | None = None


class Model(Protocol):
    """`digest` changes with the weights and with whatever else makes features; `width` d is that of what the language
    model reads, `query_image_width` and `query_text_width` those of the selection queries; `words` is how many tokens
    it knows. `entrance` does nothing; what the language model reads goes through it, [N, n, d], for who watches."""

    name: str
    digest: str
    device: torch.device
    width: int
    query_image_width: int
    query_text_width: int
    words: int
    entrance: nn.Identity

    def word_rows(self, ids: Tensor) -> Tensor:
        """[k, d], float32 and on the CPU: what the language model reads for token ids [k]; where prompts start from."""

    def instruction_length(self, instructions: list[str]) -> int:
        """Tokens of the longest instruction."""

    def encode(self, images: np.ndarray, instructions: list[str], length: int) -> FrozenFeatures:
        """Frozen features of uint8 images [N, height, width, 3] with their instructions, padded to `length` tokens. A
        row's features depend on no other row. Called when features are built, or at every step without their cache."""

    def join(self, parts: list[FrozenFeatures]) -> FrozenFeatures:
        """Rows of several tasks as one batch, padded to the longest instruction."""

    def tokens(self, features: FrozenFeatures) -> Tensor:
        """[T, d]: every row that the frozen model feeds its language model for them, padding left out."""

    def answer_ids(self, answers: list[str]) -> Tensor:
        """Labels [N, n], the end of sequence included, -100 where padded."""

    def read(self, features: FrozenFeatures, front: Tensor | None) -> Encoded:
        """Everything before the answer, for N rows with a tuner's `front` [N, m, d] at the model's own place for it.
        Called under the attached tuner, in training and evaluation."""

    def logits(self, encoded: Encoded, labels: Tensor) -> Tensor:
        """Teacher-forced logits [N, n, V] of labels [N, n]; row i of the second axis gives label i."""

    def generate(self, encoded: Encoded) -> list[str]:
        """N greedy answers."""

    def row_masks(self, encoded: Encoded, labels: Tensor) -> dict[Side, Tensor]:
        """bool [N, n] for each side: which of the rows that a place there is sent are no padding."""

    def pretraining_table(self, purpose: str) -> pa.Table:
        """A fixed sample of the model's own pre-training data in a benchmark's row form, for purpose "statistics" or
        "retention"."""

    @property
    def language_model(self) -> PreTrainedModel:
        """What reads the input and writes the answer; tuners put their tensors here, by the places below."""

    def linear_sites(self) -> dict[str, Side]:
        """Paths in the language model of the matrices that LoRA adapts, with the side of their inputs."""

    def block_sites(self) -> dict[str, tuple[nn.Module, Side]]:
        """Feed-forward blocks [N, n, d] -> [N, n, d], each with its residual, for adapters."""

    def attention_sites(self) -> dict[str, AttentionSite]:
        """Self-attentions that read the model's input, for prefixes."""


@runtime_checkable
class TellsSample(Protocol):
    """What a model may have besides: it tells what its sample is without making it."""

    def sample_digest(self, purpose: str) -> str | None:
        """Changes whenever `pretraining_table` does. None: it cannot be told, the table is made and hashed. A model
        without this method is always hashed."""


@runtime_checkable
class TellsFirstAttention(Protocol):
    """What a model may have besides: it tells how its first self-attention compares two rows of its input."""

    def first_attention(self, rows: Tensor) -> Tensor:
        """Rows x of the input [..., d] -> [..., H, d], for each of H heads the direction y with which x, normed as the
        layer does it, is compared: its score with a row p is y · p, divided by what the layer norms p by."""


def load_model(choice: Choice, device: torch.device) -> Model:
    """The model of an experiment, with its settings where any are set. Raises KeyError for an unknown name, and what
    the model raises where it cannot be loaded."""
    found: Callable[..., Model] = MODELS.load(kind_of(choice))
    return found(device, **part_settings(MODELS, choice))
