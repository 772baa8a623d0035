"""LLaVA and LLaVA-NeXT: old folders do not say how many tokens a picture takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mcit_core.families import Family


class Llava(Family):
    def processor(self, folder: Path, config: Any) -> Any:
        found = super().processor(folder, config)
        if getattr(found, "patch_size", None) is None:
            found.patch_size = config.vision_config.patch_size
            found.num_additional_image_tokens = 1  # CLIP's class token
        if getattr(found, "vision_feature_select_strategy", None) is None:
            found.vision_feature_select_strategy = config.vision_feature_select_strategy
        return found


class Llava15(Llava):
    pads = True
