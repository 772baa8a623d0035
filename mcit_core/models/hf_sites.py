"""Places in a language model of transformers, from its tree of modules."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.utils.logging import disable_progress_bar

from mcit_core.models import AttentionSite, Side
from mcit_core.models.matrices import linear
from mcit_core.targets import Targets


def language_model(network: Any, encoder_decoder: bool) -> Any:
    """The stack that reads ids; of an encoder-decoder the whole language model."""
    if encoder_decoder:
        return network.language_model
    found = network.get_decoder()  # of BLIP-2 it is the language model with its head
    inner = found.get_decoder()
    return inner if inner is not None and hasattr(found, "lm_head") else found


def checkpoint(network: Any, language_model: Any) -> list[nn.Module]:
    """Has a network's layers computed again in the backward pass, and returns those of its language model: each does it
    where its flag `training` is set."""
    network.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
    layers = [module for module in language_model.modules() if isinstance(module, GradientCheckpointingLayer)]
    for layer in layers:  # a layer that drops out by its own flag (OPT) must not begin to with it
        for name in [name for name, value in vars(layer).items() if "dropout" in name and isinstance(value, float)]:
            setattr(layer, name, 0.0)
    return layers


def quietly() -> None:
    """No bars of transformers where nobody watches."""
    if not sys.stderr.isatty():
        disable_progress_bar()


def in_one_piece(head: nn.Module) -> None:
    """Has an output head read the answers' rows as one matrix. They are cut out of longer rows, and where its weights
    are frozen torch multiplies such rows one by one, on a CPU with a copy of the weights for each."""
    head.register_forward_pre_hook(lambda _module, inputs: (inputs[0].contiguous(), *inputs[1:]))


@contextmanager
def recomputing(layers: list[nn.Module]) -> Iterator[None]:
    """Inside, what these layers keep for the backward pass is computed again there. They say so by their flag
    `training` alone: what is in them stays as in evaluation."""
    for layer in layers:
        layer.training = True
    try:
        yield
    finally:
        for layer in layers:
            layer.training = False


class Sites:
    """The places of a network of transformers, as the Model contract names them."""

    network: Any
    encoder_decoder: bool

    @property
    def language_model(self) -> Any:
        """The stack that reads ids; of an encoder-decoder the whole language model."""
        return language_model(self.network, self.encoder_decoder)

    def linear_sites(self, targets: Targets = "attention") -> dict[str, Side]:
        return linear(self.language_model, self.encoder_decoder, targets)

    def block_sites(self) -> dict[str, tuple[nn.Module, Side]]:
        return blocks(self.language_model, self.encoder_decoder)

    def attention_sites(self) -> dict[str, AttentionSite]:
        return attentions(self.language_model, self.encoder_decoder)


def blocks(language_model: Any, encoder_decoder: bool) -> dict[str, tuple[nn.Module, Side]]:
    if encoder_decoder:
        sides: tuple[Side, Side] = ("encoder", "decoder")
        return {
            f"{side}.{i}": (block.layer[-1], side)
            for side in sides
            for i, block in enumerate(language_model.get_submodule(side).block)
        }
    return {
        name: (module, "decoder")
        for name, module in language_model.named_modules()
        if re.fullmatch(r"layers\.\d+\.(mlp|fc2)", name)
    }


def attentions(language_model: Any, encoder_decoder: bool) -> dict[str, AttentionSite]:
    if encoder_decoder:
        found = [block.layer[0].SelfAttention for block in language_model.encoder.block]
        return {
            str(i): AttentionSite(m, m.n_heads, m.key_value_proj_dim, m.config._attn_implementation)
            for i, m in enumerate(found)
        }
    sites = {}
    for name, module in language_model.named_modules():
        if re.fullmatch(r"layers\.\d+\.self_attn", name):
            config = module.config
            groups = getattr(config, "num_key_value_heads", None)
            sites[name] = AttentionSite(
                module, config.num_attention_heads, module.head_dim, config._attn_implementation, groups
            )
    return sites
