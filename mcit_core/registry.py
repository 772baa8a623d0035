"""The catalogue of parts: built-in ones in a table, third-party ones through entry points of the same group name.

What is known of a part without loading it stands here, once; nothing in this file loads torch.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from importlib.metadata import entry_points
from typing import Any, Generic, TypeVar

from mcit_core.stages.sources import SOURCES


@dataclass(frozen=True)
class Part:
    """`place` is "module:attribute". `settings` is the place of the pydantic section of the part's own settings where
    that can be had without loading the part; without it the object's attribute `Settings` is looked at."""

    place: str
    settings: str | None = None

    @property
    def module(self) -> str:
        return self.place.partition(":")[0]


#: the sections of an experiment that a tuner may read; a third party's tuner may read all of them
TUNER_SECTIONS = ("pool", "prompt", "prefix", "lora", "adapter", "options")
#: fields of those sections that only bear on what later stages do to earlier ones
PROTECTING_FIELDS = ("pool.reuse", "pool.reuse_penalty", "pool.claim_share", "prefix.project_values")


@dataclass(frozen=True)
class TunerPart(Part):
    """A tuner. `reads`: the sections and single fields (dotted) that it reads; one that it does not read is refused.
    `protects`: those that only bear on what later stages do to earlier ones; a reference leaves them out, and a first
    stage does not depend on them. `lr`: the
    learning rate of its presets. `plain`: its counterpart with nothing protected, where that is another tuner. `front`:
    whether its tensors are rows of the model's input, where Fwd-Prompt's spaces lie (None: it is seen when a stage
    begins). `no_pegp`: why PEGP cannot project it."""

    reads: tuple[str, ...] = TUNER_SECTIONS
    protects: tuple[str, ...] = PROTECTING_FIELDS
    lr: float | None = None
    plain: str | None = None
    front: bool | None = None
    no_pegp: str | None = None


P = TypeVar("P", bound=Part)


@cache
def _points(group: str, path: tuple[str, ...]) -> dict[str, str]:
    """Entry points of a group, name -> place, on this import path: a look at every installed distribution."""
    return {point.name: point.value for point in entry_points(group=group)}


def near(name: object, valid: Iterable[str]) -> str:
    """A hint at the nearest of the valid names, to stand behind a message; empty where none is near."""
    close = get_close_matches(str(name), [*valid], n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""


def load_place(place: str) -> Any:
    """The object at "module:attribute"."""
    module, _, attribute = place.partition(":")
    return getattr(importlib.import_module(module), attribute)


class Registry(Generic[P]):
    """name -> part, loaded on first use. Entry points of group `group` add names without an edit here."""

    def __init__(self, group: str, kind: type[P], built_in: Mapping[str, P]) -> None:
        self.group, self.kind, self.built_in = group, kind, dict(built_in)

    def names(self) -> list[str]:
        return sorted({*self.built_in, *self._theirs()})

    def _theirs(self) -> dict[str, str]:
        return _points(self.group, tuple(sys.path))

    def part(self, name: str) -> P | None:
        """What is known of a part, without loading it; None for an unknown name."""
        if name in self.built_in:
            return self.built_in[name]
        theirs = self._theirs()
        return self.kind(theirs[name]) if name in theirs else None

    def module_of(self, name: str) -> str | None:
        """The module that holds a registered object, without loading it; None for an unknown name."""
        found = self.part(name)
        return None if found is None else found.module

    def load(self, name: str) -> Any:
        """The registered object. Raises KeyError that names the nearest valid name."""
        found = self.part(name)
        if found is None:
            raise KeyError(f"{self.group} has no {name!r}; it has {', '.join(self.names())}{near(name, self.names())}")
        if found.module not in sys.modules:
            SOURCES.remember(found.module.partition(".")[0])  # as it is now, before it is imported
        return load_place(found.place)

    def settings(self, name: str) -> Any:
        """The pydantic section of a part's own settings; None where it declares none. Raises KeyError as `load`."""
        found = self.part(name)
        if found is not None and found.settings is not None:
            return load_place(found.settings)
        return getattr(self.load(name), "Settings", None)


TUNERS = Registry(
    "mcit_core.tuners",
    TunerPart,
    {
        "prompt_pool": TunerPart(
            "mcit_core.tuners.prompt_pool:PromptPool",
            reads=("pool",),
            lr=0.03,
            front=True,
        ),
        "prompt": TunerPart("mcit_core.tuners.prompt:Prompt", reads=("prompt",), lr=0.1, front=True),
        "prefix": TunerPart(
            "mcit_core.tuners.prefix:Prefix",
            reads=("prefix",),
            lr=0.3,
            front=False,
        ),
        "lora": TunerPart(
            "mcit_core.tuners.lora:Lora",
            reads=("lora.targets", "lora.rank", "lora.alpha", "lora.projector_lr"),
            lr=0.003,
            front=False,
        ),
        "o_lora": TunerPart(
            "mcit_core.tuners.o_lora:OLora",
            reads=("lora.targets", "lora.rank", "lora.alpha", "lora.orthogonality"),
            protects=(*PROTECTING_FIELDS, "lora.orthogonality"),
            lr=0.003,
            plain="lora",
            front=False,
            no_pegp="keeps stages apart by itself",
        ),
        "moe_lora": TunerPart("mcit_core.tuners.moe_lora:MoeLora", reads=("options",), front=False),
        "adapter": TunerPart("mcit_core.tuners.adapter:Adapter", reads=("adapter",), lr=0.01, front=False),
        "full": TunerPart(
            "mcit_core.tuners.full:Full",
            reads=(),
            lr=0.001,
            front=False,
            no_pegp="has no low-dimensional form to project",
        ),
    },
)
MODELS = Registry(
    "mcit_core.models",
    Part,
    {
        "mini": Part("mcit_core.models.mini:MiniModel", "mcit_core.models.settings:MiniModelSettings"),
        "hf": Part("mcit_core.models.hf:HfModel", "mcit_core.models.settings:HfSettings"),
        "smol": Part("mcit_core.models.smol:SmolModel", "mcit_core.models.settings:SmolSettings"),
    },
)
#: what a class of transformers has of its own, by its configuration's model_type, for models of kind `hf`
FAMILIES = Registry(
    "mcit_core.families",
    Part,
    {
        **dict.fromkeys(("idefics3", "gemma3"), Part("mcit_core.families:Family")),
        "llava": Part("mcit_core.families.llava:Llava15"),
        "llava_next": Part("mcit_core.families.llava:Llava"),
        **dict.fromkeys(("llava_onevision", "qwen2_5_vl", "internvl"), Part("mcit_core.families.still:StillFamily")),
        "qwen3_vl": Part("mcit_core.families.qwen3_vl:Qwen3Vl"),
        "smolvlm": Part("mcit_core.families.smolvlm:SmolVlm"),
        **dict.fromkeys(("blip-2", "instructblip"), Part("mcit_core.families.blip:Blip")),
        "paligemma": Part("mcit_core.families.paligemma:PaliGemma"),
    },
)
BENCHMARKS = Registry(
    "mcit_core.benchmarks",
    Part,
    {
        "mini": Part("mcit_core.benchmarks.mini:MiniBenchmark"),
        "easy_vqa": Part("mcit_core.benchmarks.easy_vqa:EasyVqaBenchmark"),
        "coin": Part("mcit_core.benchmarks.files:Coin"),
        "ucit": Part("mcit_core.benchmarks.files:Ucit"),
        "mllm_dcl": Part("mcit_core.benchmarks.files:MllmDcl"),
        "mllm_acl": Part("mcit_core.benchmarks.files:MllmAcl"),
        "llava_json": Part("mcit_core.benchmarks.llava_json:LlavaJson"),
    },
)
#: what protects earlier tasks, by "section.kind" of the experiment
PROTECTIONS = Registry(
    "mcit_core.protections",
    Part,
    {
        "projection.residual": Part("mcit_core.protection.projection:Residual"),
        "projection.pretrained": Part("mcit_core.protection.projection:Pretrained"),
        "projection.both": Part("mcit_core.protection.projection:Both"),
        "projection.pegp": Part("mcit_core.protection.pegp:Pegp"),
        "averaging.fixed": Part("mcit_core.protection.averaging:Fixed"),
        "averaging.taylor": Part("mcit_core.protection.averaging:Taylor"),
        "averaging.per_tensor": Part("mcit_core.protection.averaging:PerTensor"),
        "replay.reservoir": Part("mcit_core.protection.replay:Reservoir"),
        "regulariser.ewc": Part("mcit_core.protection.ewc:Ewc"),
        "regulariser.lwf": Part("mcit_core.protection.lwf:Lwf"),
        "regulariser.mas": Part("mcit_core.protection.mas:Mas"),
        "grouping.enabled": Part("mcit_core.protection.grouping:InstructionGroups"),
    },
)


def plain_tuner(name: str) -> str:
    """The tuner that a protecting one is compared with: itself, unless its part names another."""
    part = TUNERS.part(name)
    return part.plain if part is not None and part.plain is not None else name
