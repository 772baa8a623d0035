"""Prefix keys and values in front of those of every self-attention of the encoder (Li & Liang, arXiv 2101.00190).

They reach the attention through transformers' own extension point, the attention interface, so that no layer is copied.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface

from mcit_core.config import Experiment
from mcit_core.models import Model
from mcit_core.tuners import BaseTuner, Site

INTERFACE = "mcit_prefix"


def _widen(bias: Tensor | None, length: int) -> Tensor | None:
    """An additive or boolean mask [..., q, n] -> [..., q, length + n]: prefixes are always visible, with no bias."""
    return None if bias is None else F.pad(bias, (length, 0), value=True if bias.dtype == torch.bool else 0.0)


def prefix_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    position_bias: Tensor | None = None,
    **rest: Any,
) -> Any:
    """The model's own attention on [prefix; tokens]; query [N, H, n, w], key and value [N, G, n, w]."""
    layer: PrefixLayer = module.mcit_prefix
    # float32, in which a mask's least value would be out of a half-precision bias's range
    keys, values = (part.to(key.dtype) for part in layer(query))
    n = len(query)
    if attention_mask is None and getattr(module, "is_causal", True):
        # without padding the kernels make the mask themselves, and count from the first key, which is a prefix now
        asked, there = query.shape[2], key.shape[2]
        attention_mask = query.new_ones(1, 1, asked, there, dtype=torch.bool).tril(there - asked)
    key, value = torch.cat([keys.expand(n, -1, -1, -1), key], 2), torch.cat([values.expand(n, -1, -1, -1), value], 2)
    if position_bias is not None:
        rest["position_bias"] = _widen(position_bias, keys.shape[2])
    # "eager" stands in no table: each file of transformers has its own
    own = getattr(sys.modules[type(module).__module__], "eager_attention_forward", None)
    inner = AttentionInterface().get_interface(layer.implementation, own)
    return inner(module, query, key, value, _widen(attention_mask, keys.shape[2]), **rest)


AttentionInterface.register(INTERFACE, prefix_attention)


class PrefixLayer(nn.Module):
    """The prefixes of one attention: G keys and values, [P, w] each; `probes` see the queries that meet them."""

    def __init__(self, keys: list[nn.Parameter], values: list[nn.Parameter], implementation: str) -> None:
        super().__init__()
        self.keys, self.values = nn.ParameterList(keys), nn.ParameterList(values)
        self.probes = nn.ModuleList(nn.Identity() for _ in keys)
        self.implementation = implementation

    def forward(self, query: Tensor) -> tuple[Tensor, Tensor]:
        share = query.shape[1] // len(self.probes)  # heads of queries for each of the keys
        for head in range(query.shape[1]):
            self.probes[head // share](query[:, head])
        return torch.stack(list(self.keys))[None], torch.stack(list(self.values))[None]


class Prefix(BaseTuner):
    """keys.<layer>.<head> and values.<layer>.<head>, [P, w]. PEGP's condition is taken per head, q ΔP_kᵀ = 0, which
    keeps every old query's attention to the prefix; the paper writes it with the layer's input."""

    def __init__(self, experiment: Experiment, model: Model) -> None:
        super().__init__(experiment, model)
        length = experiment.prefix.length
        for attention in model.attention_sites().values():
            if attention.implementation.startswith("flash"):
                raise ValueError(
                    f"tuner prefix: attention {attention.implementation} knows no prefix; set model.attention: sdpa"
                )
        self._layers: dict[str, tuple[nn.Module, PrefixLayer]] = {}
        for layer, attention in model.attention_sites().items():
            pairs: dict[str, list[nn.Parameter]] = {}
            for kind in ("keys", "values"):
                pairs[kind] = []
                for head in range(attention.groups or attention.heads):
                    start = 0.02 * torch.randn(length, attention.width, generator=self.generator)
                    self.weights[f"{kind}.{layer}.{head}"] = self.parameter(start)
                    pairs[kind].append(self.weights[f"{kind}.{layer}.{head}"])
                    if kind == "keys" or experiment.prefix.project_values:
                        self.projected[f"{kind}.{layer}.{head}"] = f"{layer}.{head}"
            self._layers[layer] = (attention.module, PrefixLayer(**pairs, implementation=attention.implementation))

    @contextmanager
    def attached(self) -> Iterator[None]:
        configs = {layer: module.config for layer, (module, _) in self._layers.items()}
        try:
            for module, prefix in self._layers.values():
                # of this layer alone: masks are still made for the model's own implementation
                module.config = copy.copy(module.config)
                module.config._attn_implementation = INTERFACE  # type: ignore[union-attr]
                module.mcit_prefix = prefix
            yield
        finally:
            for layer, (module, _) in self._layers.items():
                module.config = configs[layer]
                if hasattr(module, "mcit_prefix"):
                    del module.mcit_prefix

    def sites(self) -> dict[str, Site]:
        return {
            f"{layer}.{head}": Site(probe)
            for layer, (_, prefix) in self._layers.items()
            for head, probe in enumerate(prefix.probes)
        }
