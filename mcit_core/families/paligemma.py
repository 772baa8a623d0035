"""PaliGemma: positions count from one, answers have a token type of their own (the question is read both ways)."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from mcit_core.families import Family


class PaliGemma(Family):
    answer_type = 1
    pictures = (1, None)

    def first_position(self, columns: dict[str, Tensor], config: Any) -> int | None:
        return 1
