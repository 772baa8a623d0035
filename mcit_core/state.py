"""What a stage leaves behind: tensors in safetensors, the rest in JSON; never pickle."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor


@dataclass(frozen=True)
class StageState:
    """The tensors that stage t leaves for stage t + 1 and for evaluation."""

    tensors: dict[str, Tensor] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in self.tensors.items()}, path)

    @staticmethod
    def load(path: Path) -> StageState:
        return StageState(load_file(path))

    def equals(self, other: StageState) -> bool:
        """Bit-equal tensors of the same names."""
        return self.tensors.keys() == other.tensors.keys() and all(
            torch.equal(tensor, other.tensors[name]) for name, tensor in self.tensors.items()
        )

    @property
    def bytes(self) -> int:
        return sum(tensor.numel() * tensor.element_size() for tensor in self.tensors.values())
