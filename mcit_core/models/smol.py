"""`model: smol`: a small vision-language model whose tower and language model other people have pre-trained, all of it
installed by pip; only the projector between them was trained here. See `mcit_core.models.smol_parts`.
"""

from __future__ import annotations

from pathlib import Path

import torch

from mcit_core.miniworld.sample import MixtureSample
from mcit_core.models.hf import HfModel
from mcit_core.models.settings import HfSettings, SmolSettings
from mcit_core.models.smol_parts import CHECKPOINT, smol_folder


class SmolModel(HfModel):
    """The Model contract (see `mcit_core.models`); its sample are rows of the mixture that its projector learnt on."""

    name = "smol"
    Settings = SmolSettings

    def __init__(self, device: torch.device, settings: SmolSettings | None = None) -> None:
        """Puts the model together below the user's cache where it is not there yet (half a minute, 0.6 GB). Raises
        ModuleNotFoundError where one of its packages is missing, FileNotFoundError or ValueError where the projector
        is missing or damaged."""
        chosen = settings or SmolSettings()
        checkpoint = CHECKPOINT if chosen.path is None else Path(chosen.path).expanduser()
        told = HfSettings(path=str(smol_folder(checkpoint)), **chosen.model_dump(exclude={"path"}))
        super().__init__(device, told)
        self.sample = MixtureSample()
