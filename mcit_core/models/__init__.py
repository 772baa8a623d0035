"""The Model contract: a frozen vision-language model seen from the side of a tuner.

Its rows are opaque: only the model knows what is in the `Batch` that it encodes and in the `Encoded` that it reads.

Register one in `mcit_core.registry` or through the entry-point group `mcit_core.models`. It is made for a device; one
with settings of its own (`model: {kind: NAME, ...}`) has a pydantic section as its attribute `Settings` (or names it in
its registry line, so that files are checked without loading it) and takes `settings=`, an instance of it, where any is
set. Importing this file loads no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self, runtime_checkable

from mcit_core.choices import Choice, kind_of, part_settings
from mcit_core.registry import MODELS
from mcit_core.targets import Targets

if TYPE_CHECKING:  # so that a model's settings can be read without loading torch
    import pyarrow as pa
    import torch
    from torch import Tensor, nn
    from transformers import PreTrainedModel

    from mcit_core.example import Example


class Batch(Protocol):
    """N rows as the frozen part of a model knows them; what else it holds is the model's own affair."""

    @property
    def query_image(self) -> Tensor:
        """[N, d_v], float32: the pooled pictures, for selection."""

    @property
    def query_text(self) -> Tensor:
        """[N, d_t], float32: the mean of the instruction's rows, for selection."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: Tensor) -> Self:
        """The rows of a tensor of row numbers, or of bools."""

    def to(self, device: torch.device) -> Self: ...


class Encoded(Protocol):
    """N rows as the language model has read them, the tuner's rows in front; the answer is all that is missing."""

    def __getitem__(self, index: Tensor) -> Self:
        """The rows of a tensor of row numbers."""


#: whose padding counts at a place: that of the model's input or that of the answer
Side = Literal["encoder", "decoder"]


class Sample(Protocol):
    """Some of the rows that a model was pre-trained on, the same ones at every call: an index in a benchmark's form for
    each purpose, "statistics" or "retention"."""

    def rows(self, purpose: str) -> pa.Table: ...

    def open(self, row: Mapping[str, Any]) -> Example: ...

    def digest(self, purpose: str) -> str | None:
        """Changes whenever the rows do. None: it cannot be told, they are made and hashed."""


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
    it knows. `entrance` does nothing; what the language model reads goes through it, [N, n, d], for who watches. Where
    `sample` is None, statistics of its input are those of the benchmark's first task, and nothing tells how much of its
    earlier skill is left."""

    name: str
    device: torch.device
    width: int
    query_image_width: int
    query_text_width: int
    words: int
    entrance: nn.Identity
    sample: Sample | None

    @property
    def digest(self) -> str:
        """Of all that it is made from."""

    def word_rows(self, ids: Tensor) -> Tensor:
        """[k, d], float32 and on the CPU: what the language model reads for token ids [k]; where prompts start from."""

    def instruction_length(self, instructions: list[str]) -> int:
        """What the instructions of a whole split are padded to, so that no row depends on its batch; 0 where `encode`
        pads each batch by itself."""

    def prepare(self, examples: list[Example], length: int) -> Any:
        """What `encode` takes for these rows, made on the CPU by processor and tokenizer; it can be pickled."""

    def encode(self, prepared: Any) -> Batch:
        """The rows' frozen features. Called when features are built, or at every step where they are not kept."""

    def join(self, parts: list[Any]) -> Batch:
        """Batches of several tasks as one."""

    def tokens(self, batch: Any) -> Tensor:
        """[T, d]: every row that the frozen model feeds its language model for them, padding left out."""

    def answer_ids(self, answers: list[str]) -> Tensor:
        """Labels [N, n], the end of sequence included, -100 where padded."""

    def read(self, batch: Any, front: Tensor | None) -> Encoded:
        """Everything before the answer, for N rows with a tuner's `front` [N, m, d] at the model's own place for it.
        Called under the attached tuner, in training and evaluation."""

    def logits(self, encoded: Any, labels: Tensor) -> Tensor:
        """Teacher-forced logits [N, n, V] of labels [N, n]; row i of the second axis gives label i."""

    def generate(self, encoded: Any, most: int) -> list[str]:
        """N greedy answers of at most so many tokens."""

    def row_masks(self, encoded: Any, labels: Tensor) -> dict[Side, Tensor]:
        """bool [N, n] for each side: which of the rows that a place there is sent are no padding."""

    @property
    def language_model(self) -> PreTrainedModel:
        """What reads the input and writes the answer; tuners put their tensors here, by the places below."""

    def linear_sites(self, targets: Targets = "attention") -> dict[str, Side]:
        """Paths in the language model of matrices, with the side of their inputs: query and value of every attention,
        all of every layer, or those whose last names are given. Raises ValueError for a name that no matrix has."""

    def block_sites(self) -> dict[str, tuple[nn.Module, Side]]:
        """Feed-forward blocks [N, n, d] -> [N, n, d], each with its residual, for adapters."""

    def attention_sites(self) -> dict[str, AttentionSite]:
        """Self-attentions that read the model's input, for prefixes."""


@runtime_checkable
class KeepsFeatures(Protocol):
    """What a model may have besides: what it encodes is worth keeping on disk, and has one shape in a whole split. A
    row's features depend on no other row."""

    def columns(self, batch: Any) -> Mapping[str, Tensor]:
        """All that a batch holds, [N, ...] each."""

    def from_columns(self, columns: Mapping[str, Tensor]) -> Batch:
        """The batch that `columns` was made of."""


@runtime_checkable
class HasProjector(Protocol):
    """What a model may have besides: what maps its tower's tokens to its language model's width can be trained."""

    @property
    def projector(self) -> nn.Module | None:
        """Frozen. None where it is not one module that maps token by token, last of all."""

    def projecting(self, weights: Mapping[str, Tensor]) -> AbstractContextManager[None]:
        """Inside, rows are read through the projector with these weights in the place of its own."""


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
