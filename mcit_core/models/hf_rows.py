"""Rows of a model of kind `hf`, as its processor, its tower and its language model leave them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from transformers import PretrainedConfig

#: columns that say of every token what kind it is
TOKEN_TYPES = ("mm_token_type_ids", "token_type_ids")


@dataclass(frozen=True)
class HfBatch:
    """N rows. `columns` are as long as the questions, [N, n] each: `ids`, `mask` and maybe token types. Per row:
    `visual`, its projected image tokens [k, d]; `deep`, the same for each further layer that they enter; `grid`, the
    patches of each of its pictures [pictures, 3]; `seen`, what the projector made `visual` of [k, c]; empty where it
    has no picture or the model no such thing."""

    columns: dict[str, Tensor]
    slot: Tensor  # [N] the column where a front goes
    visual: list[Tensor]
    deep: list[list[Tensor]]
    grid: list[Tensor]
    seen: list[Tensor]
    query_image: Tensor  # [N, d_v]
    query_text: Tensor  # [N, d]

    def __len__(self) -> int:
        return len(self.slot)

    def __getitem__(self, index: Tensor) -> HfBatch:
        rows = torch.arange(len(self))[index.cpu()].tolist()
        index = index.to(self.slot.device)
        return HfBatch(
            {name: column[index] for name, column in self.columns.items()},
            self.slot[index],
            [self.visual[row] for row in rows],
            [self.deep[row] for row in rows],
            [self.grid[row] for row in rows],
            [self.seen[row] for row in rows],
            self.query_image[index],
            self.query_text[index],
        )

    def to(self, device: torch.device) -> HfBatch:
        return HfBatch(
            {name: column.to(device) for name, column in self.columns.items()},
            self.slot.to(device),
            [tokens.to(device) for tokens in self.visual],
            [[level.to(device) for level in row] for row in self.deep],
            [grid.to(device) for grid in self.grid],
            [tokens.to(device) for tokens in self.seen],
            self.query_image.to(device),
            self.query_text.to(device),
        )


@dataclass(frozen=True)
class HfEncoded:
    """What a decoder is to read, carriers in their places; `hidden` what an encoder has read."""

    rows: HfBatch
    front: Tensor | None  # [N, m, d]
    where: Tensor  # bool [N, n], the carriers
    hidden: Tensor | None = None  # [N, n, d]

    @property
    def mask(self) -> Tensor:
        return self.rows.columns["mask"]

    def __getitem__(self, index: Tensor) -> HfEncoded:
        def pick(value: Tensor | None) -> Tensor | None:
            return None if value is None else value[index]

        return HfEncoded(self.rows[index], pick(self.front), self.where[index], pick(self.hidden))


@dataclass(frozen=True)
class Prepared:
    inputs: dict[str, Tensor]  # what the processor makes
    pictures: list[int]  # of each row


def gathered(columns: Mapping[str, Tensor], right: bool) -> dict[str, Tensor]:
    """Columns [N, n] with all padding on one side: a decoder's on the left, an encoder's on the right, whose relative
    positions count it. BLIP's processors pad the words before they put the image tokens in front, which leaves padding
    in the middle."""
    real = columns["mask"].bool()
    order = real.long().argsort(dim=1, stable=True, descending=right)
    return {name: value.gather(1, order) for name, value in columns.items()}


def flat(tokens: Tensor | list[Tensor] | tuple[Tensor, ...]) -> Tensor:
    """Image tokens [T, d] in order, whether they come by picture, by tile or all at once."""
    parts = [tokens] if isinstance(tokens, Tensor) else tokens
    return torch.cat([part.reshape(-1, part.shape[-1]) for part in parts])


def image_token_of(config: PretrainedConfig, folder: Path) -> int:
    for name in ("image_token_id", "image_token_index"):
        found = getattr(config, name, None)
        if isinstance(found, int):
            return found
    raise ValueError(f"model.path: config.json in {folder} names no image token (image_token_id)")
