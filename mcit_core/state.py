"""What a stage leaves behind: tensors in safetensors, the rest in JSON; never pickle."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import load, save
from torch import Tensor


@dataclass(frozen=True)
class StageState:
    """The tensors that stage t leaves for stage t + 1 and for evaluation."""

    tensors: dict[str, Tensor] = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        return save({name: tensor.detach().cpu().contiguous() for name, tensor in self.tensors.items()})

    @staticmethod
    def from_bytes(data: bytes) -> StageState:
        """Raises SafetensorError where `data` is not what `to_bytes` made."""
        return StageState(load(data))

    def save(self, path: Path) -> None:
        path.write_bytes(self.to_bytes())

    @staticmethod
    def load(path: Path) -> StageState:
        return StageState.from_bytes(path.read_bytes())

    def equals(self, other: StageState) -> bool:
        """Bit-equal tensors of the same names."""
        return self.tensors.keys() == other.tensors.keys() and all(
            torch.equal(tensor, other.tensors[name]) for name, tensor in self.tensors.items()
        )

    @property
    def bytes(self) -> int:
        return sum(tensor.numel() * tensor.element_size() for tensor in self.tensors.values())
