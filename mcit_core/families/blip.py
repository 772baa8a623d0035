"""BLIP-2 and InstructBLIP: a Q-Former between tower and language model, whose own forward wants pixels."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import GPT2Tokenizer

from mcit_core.families import Family


class Blip(Family):
    pictures = (1, 1)

    def plain(self, processor: Any, instruction: str, pictures: int) -> str:
        return instruction  # image tokens are the processor's own affair

    def lead(self, processor: Any) -> str:
        """OPT's answers begin with a space; other tokenizers put one before a word by themselves."""
        return " " if isinstance(processor.tokenizer, GPT2Tokenizer) else ""

    def caller(self, network: Any) -> Any:
        return network.language_model

    def inner_config(self, config: Any) -> Any | None:
        return config.text_config

    def query_width(self, config: Any) -> int:
        width: int = config.vision_config.hidden_size
        return width

    def query_images(self, seen: Any, visual: list[Tensor], pictures: list[int]) -> Tensor:
        """The mean of the tower's outputs: InstructBLIP's Q-Former has read the instruction too, which is the other
        query. A row without a picture has zeros."""
        means = seen.vision_outputs.last_hidden_state.float().mean(1)
        return torch.stack([part.sum(0) / max(len(part), 1) for part in means.split(pictures)])
