"""Names of the parts: built-in ones in a table, third-party ones through entry points of the same group name."""

from __future__ import annotations

import importlib
from difflib import get_close_matches
from importlib.metadata import entry_points
from typing import Any


class Registry:
    """name -> "module:attribute", loaded on first use. Entry points of group `group` add names without an edit here."""

    def __init__(self, group: str, built_in: dict[str, str]) -> None:
        self.group, self.built_in = group, built_in

    def names(self) -> list[str]:
        return sorted({*self.built_in, *(point.name for point in entry_points(group=self.group))})

    def module_of(self, name: str) -> str | None:
        """The module that holds a registered object, without loading it; None for an unknown name."""
        if name in self.built_in:
            return self.built_in[name].split(":")[0]
        return next((point.module for point in entry_points(group=self.group, name=name)), None)

    def load(self, name: str) -> Any:
        """The registered object. Raises KeyError that names the nearest valid name."""
        if name in self.built_in:
            module, attribute = self.built_in[name].split(":")
            return getattr(importlib.import_module(module), attribute)
        for point in entry_points(group=self.group, name=name):
            return point.load()
        close = get_close_matches(name, self.names(), n=1)
        raise KeyError(
            f"{self.group} has no {name!r}; it has {', '.join(self.names())}"
            + (f" (did you mean {close[0]!r}?)" if close else "")
        )


TUNERS = Registry(
    "mcit_core.tuners",
    {
        "prompt_pool": "mcit_core.tuners.prompt_pool:PromptPool",
        "prompt": "mcit_core.tuners.prompt:Prompt",
        "prefix": "mcit_core.tuners.prefix:Prefix",
        "lora": "mcit_core.tuners.lora:Lora",
        "o_lora": "mcit_core.tuners.o_lora:OLora",
        "moe_lora": "mcit_core.tuners.moe_lora:MoeLora",
        "adapter": "mcit_core.tuners.adapter:Adapter",
        "full": "mcit_core.tuners.full:Full",
    },
)
MODELS = Registry("mcit_core.models", {"mini": "mcit_core.models.mini:MiniModel"})
BENCHMARKS = Registry("mcit_core.benchmarks", {"mini": "mcit_core.benchmarks.mini:MiniBenchmark"})


#: the sections that each built-in tuner reads; a third party's tuner may read any of them, and `options`
TUNER_SECTIONS: dict[str, tuple[str, ...]] = {
    "prompt_pool": ("pool",),
    "prompt": ("prompt",),
    "prefix": ("prefix",),
    "lora": ("lora",),
    "o_lora": ("lora",),
    "adapter": ("adapter",),
    "full": (),
}


#: tuners whose tensors are rows of the model's input, where Fwd-Prompt's spaces live
INPUT_TUNERS = ("prompt_pool", "prompt")


#: the unprotected tuner that a protecting one is compared with
PLAIN_TUNER = {"o_lora": "lora"}


#: the best of six for each tuner on the first task of sweeps/compare.yaml, by validation (sweeps/tune.yaml)
LEARNING_RATES = {"prompt_pool": 0.03, "prompt": 0.1, "prefix": 0.3, "lora": 0.003, "adapter": 0.01, "full": 0.001}
