"""SmolVLM: its processor insists on a video half, and on the package num2words, which spells out a video's frames."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers.models.smolvlm import processing_smolvlm

from mcit_core.families import Family
from mcit_core.families.still import STAND_IN, still


def still_smolvlm() -> Any:
    """Its class of processors for pictures alone."""
    processing_smolvlm.num2words = processing_smolvlm.num2words or str

    class StillSmolVlm(still(processing_smolvlm.SmolVLMProcessor)):  # type: ignore[misc]
        def __init__(
            self,
            image_processor: Any,
            tokenizer: Any,
            video_processor: Any = STAND_IN,
            image_seq_len: int = 169,
            chat_template: str | None = None,
            **options: Any,
        ) -> None:
            super().__init__(image_processor, tokenizer, STAND_IN, image_seq_len, chat_template, **options)

    StillSmolVlm.__name__ = "SmolVLMProcessor"
    return StillSmolVlm


class SmolVlm(Family):
    def processor(self, folder: Path, config: Any) -> Any:
        return still_smolvlm().from_pretrained(folder, local_files_only=True)
