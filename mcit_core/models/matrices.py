"""The matrices of a language model's layers, from its tree of modules."""

from __future__ import annotations

import re
from typing import Any

from torch import nn

from mcit_core.models import Side
from mcit_core.targets import Targets

#: last names of an attention's query and value matrices
QUERY_VALUE = ("q", "v", "q_proj", "v_proj")


def linear(language_model: Any, encoder_decoder: bool, targets: Targets = "attention") -> dict[str, Side]:
    """As `Model.linear_sites`."""

    def side(name: str) -> Side:
        # a decoder's cross-attention reads its keys and values from the encoder's rows
        from_encoder = name.startswith("encoder.") or ("EncDecAttention" in name and name.endswith((".k", ".v")))
        return "encoder" if encoder_decoder and from_encoder else "decoder"

    # a layer is one of several, and has a number
    matrices = [
        name
        for name, module in language_model.named_modules()
        if isinstance(module, nn.Linear) and re.search(r"\.\d+\.", name)
    ]
    names = {name.rpartition(".")[2] for name in matrices}
    wanted = names if targets == "all" else {*QUERY_VALUE} if targets == "attention" else {*targets}
    if unknown := sorted(wanted - names) if isinstance(targets, tuple) else []:
        raise ValueError(
            f"lora.targets: the model has no matrix {', '.join(unknown)}; it has {', '.join(sorted(names))}"
        )
    return {name: side(name) for name in matrices if name.rpartition(".")[2] in wanted}
