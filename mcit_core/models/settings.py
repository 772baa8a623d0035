"""The settings that models declare, so that a sweep file is checked without loading torch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from mcit_core.config import Section


class MiniModelSettings(Section):
    """`model: {kind: mini, path: DIR}`."""

    path: str | None = Field(None, description="another checkpoint of the same form; null: the shipped one")


class Computing(Section):
    """How a network of transformers computes."""

    dtype: Literal["float32", "bfloat16", "float16"] = Field(
        "float32", description="of the frozen weights; what is trained stays float32"
    )
    checkpointing: bool = Field(
        False,
        description="layers are computed again in the backward pass: less memory, more time",
    )
    place: Literal["content", "start"] = Field(
        "content", description="where a prompt goes: before the user's content, or at the start of the sequence"
    )


class SmolSettings(Computing):
    """`model: {kind: smol, dtype: bfloat16}`."""

    path: str | None = Field(None, description="the folder of another projector; null: the shipped one")
    dtype: Literal["float32", "bfloat16"] = Field(
        "float32",
        description="of the frozen weights; bfloat16 is faster on a CPU that multiplies it (avx512_bf16, amx)",
    )
    attention: Literal["sdpa", "eager"] = Field(
        "eager", description="transformers' implementation; eager is the faster one on a CPU"
    )


class HfSettings(Computing):
    """`model: {kind: hf, path: DIR}`."""

    path: str = Field(description="a folder that transformers' save_pretrained wrote, or the hub's name of a model")
    revision: str | None = Field(
        None, description="of a model of the hub: branch, tag or commit; null: its main branch"
    )
    attention: Literal["sdpa", "eager", "flash_attention_2"] | None = Field(
        None, description="transformers' implementation; null: what the class prefers, sdpa where it can"
    )
    image: Literal["processor", "pad", "as_published"] = Field(
        "processor",
        description="pictures go to the processor as they are, or on a square of its mean colour (pad); as_published: "
        "as the family's own code has it, which for LLaVA-1.5 is pad",
    )
    max_pixels: int | None = Field(None, ge=1, description="of a picture; larger ones are made smaller first")
    sample: str | None = Field(
        None,
        description="a JSON file in LLaVA's form that stands for the data it was pre-trained on; null: rows of the "
        "first task do, and nothing is known of what it forgets",
    )
    chat: bool | None = Field(
        None, description="instructions go through the processor's chat template; null: where it has one"
    )
