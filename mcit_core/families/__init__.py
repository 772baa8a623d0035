"""How classes of transformers differ from the generic rules of `mcit_core.models.hf`, a small file each.

A family is registered under its configuration's `model_type`, in `mcit_core.registry` or through the entry-point group
`mcit_core.families`. A class without one is tried by the generic rules: `python -m mcit_core.models.check` says whether
they hold.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoProcessor

from mcit_core.models.hf_rows import HfBatch
from mcit_core.registry import FAMILIES


class Family:
    """The generic rules; a family overrides what is its own. `answer_type`: the token type of an answer's tokens;
    `pictures`: how many a row may have, at least and at most (None: any number); `pads`: its own code puts pictures on
    a square; `projectors`: where what maps image tokens to the language model's width may be, token by token."""

    answer_type = 0
    pads = False
    projectors: tuple[str, ...] = (
        "model.multi_modal_projector",
        "model.connector.modality_projection",
        "language_projection",
    )
    pictures: tuple[int, int | None] = (0, None)

    def processor(self, folder: Path, config: Any) -> Any:
        """Processor of a folder. Raises OSError or ValueError where there is none that can be read."""
        return AutoProcessor.from_pretrained(folder, local_files_only=True)

    def plain(self, processor: Any, instruction: str, pictures: int) -> str:
        """What the processor gets for a row without a chat template."""
        mark: str = getattr(processor, "boi_token", None) or processor.image_token
        return mark * pictures + instruction

    def lead(self, processor: Any) -> str:
        """What stands between question and answer without a chat template."""
        return ""

    def caller(self, network: Any) -> Any:
        """What is called with ids and generates: the network, or a language model inside it."""
        return network

    def inner_config(self, config: Any) -> Any | None:
        """The configuration of that language model, None where it is the network."""
        return None

    def projector(self, network: Any) -> nn.Module | None:
        """What maps image tokens to the language model's width, one by one; None where the family has no such thing."""
        for path in self.projectors:
            with suppress(AttributeError):
                found: nn.Module = network.get_submodule(path)
                return found
        return None

    def query_width(self, config: Any) -> int:
        """Width of a row's picture query."""
        width: int = config.get_text_config().hidden_size
        return width

    def query_images(self, seen: Any, visual: list[Tensor], pictures: list[int]) -> Tensor:
        """[N, d_v], float32, from what `get_image_features` gives, the projected tokens of each row and how many
        pictures it has: the mean of a row's projected tokens, zeros where there are none."""
        return torch.stack([tokens.float().sum(0) / max(len(tokens), 1) for tokens in visual])

    def first_position(self, columns: dict[str, Tensor], config: Any) -> int | None:
        """The position of a row's first token; None where the model counts by itself, from ids and mask."""
        own = "mm_token_type_ids" in columns or config.get_text_config().model_type == "opt"
        return None if own else 0

    def more(self, rows: HfBatch) -> dict[str, Any]:
        """Further arguments of the network for a batch."""
        grid = torch.cat(rows.grid)
        return {"image_grid_thw": grid} if len(grid) else {}


def family_of(model_type: str) -> Family:
    """The family of a configuration's `model_type`; the generic rules where none is registered."""
    if model_type not in FAMILIES.names():
        return Family()
    made: Family = FAMILIES.load(model_type)()
    return made
