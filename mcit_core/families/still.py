"""Processors of pictures alone: their video half wants torchvision, which nothing here needs."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from transformers.models.auto.processing_auto import PROCESSOR_MAPPING

from mcit_core.families import Family

#: for the video half: read by chat templates, never called
STAND_IN = SimpleNamespace(num_frames=1, fps=1, video_sampling={}, video_size={}, size={})


def still(processor: Any) -> Any:
    """A class of processors without its video half."""

    class Still(processor):  # type: ignore[misc]
        video_processor = STAND_IN

        @classmethod
        def get_attributes(cls) -> list[str]:
            return [name for name in super().get_attributes() if name != "video_processor"]

        def check_argument_for_proper_class(self, argument_name: str, argument: Any) -> Any:
            if argument_name == "video_processor":
                return type(None)
            return super().check_argument_for_proper_class(argument_name, argument)

    Still.__name__ = Still.__qualname__ = processor.__name__
    return Still


class StillFamily(Family):
    def processor(self, folder: Path, config: Any) -> Any:
        return still(PROCESSOR_MAPPING[type(config)]).from_pretrained(folder, local_files_only=True)
