"""What a stage leaves behind: tensors in safetensors, the rest in JSON; never pickle."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import load, save
from torch import Tensor


def _prefix(number: int) -> str:
    return f"group{number}/" if number else ""


@dataclass(frozen=True)
class StageState:
    """The tensors that stage t leaves for stage t + 1 and for evaluation."""

    tensors: dict[str, Tensor] = field(default_factory=dict)

    def group(self, number: int) -> StageState | None:
        """The tensors of one instruction group, None where it has none yet. Those of group 0 have their plain names, so
        that a sequence without groups, and one whose tasks all fall into the first, leave the same state."""
        prefix = _prefix(number)
        found = {
            name.removeprefix(prefix): tensor
            for name, tensor in self.tensors.items()
            if (name.startswith(prefix) if number else not name.startswith("group"))
        }
        return StageState(found) if found else None

    @property
    def groups(self) -> int:
        """How many instruction groups have tensors; 1 where there are none."""
        numbers = {int(found[1]) for name in self.tensors if (found := re.match(r"group(\d+)/", name))}
        return 1 + max(numbers, default=0)

    def with_group(self, number: int, group: StageState) -> StageState:
        """This state with one group's tensors put in the place of its old ones."""
        old = self.group(number)
        prefix = _prefix(number)
        gone = {prefix + name for name in old.tensors} if old else set()
        kept = {name: tensor for name, tensor in self.tensors.items() if name not in gone}
        return StageState({**kept, **{prefix + name: tensor for name, tensor in group.tensors.items()}})

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
