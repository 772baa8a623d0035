"""Which matrices of a language model a setting means."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field


def _each_once(names: tuple[str, ...]) -> tuple[str, ...]:
    """In one order, so that one choice has one key."""
    if words := {"attention", "all"} & {*names}:
        raise ValueError(f"{words.pop()} is no name of a matrix; give it alone, without brackets")
    return tuple(sorted({*names}))


#: query and value matrices of every attention; every matrix of every layer; or those of these last names
Targets = (
    Literal["attention", "all"]
    | Annotated[tuple[str, ...], Field(strict=False, min_length=1), AfterValidator(_each_once)]
)
