"""Qwen3-VL: its image tokens enter further layers too (deepstack)."""

from __future__ import annotations

from typing import Any

import torch
from transformers.modeling_outputs import BaseModelOutputWithPooling

from mcit_core.families.still import StillFamily
from mcit_core.models.hf_rows import HfBatch


class Qwen3Vl(StillFamily):
    def more(self, rows: HfBatch) -> dict[str, Any]:
        arguments = super().more(rows)
        deep = [levels for levels in rows.deep if levels]
        if deep:
            seen = BaseModelOutputWithPooling(pooler_output=[torch.cat(rows.visual)])
            seen.deepstack_features = [[torch.cat(level)] for level in zip(*deep, strict=True)]
            arguments["mm_encoder_outputs"] = {"image": seen}
        return arguments
