"""Rows of trials.parquet made from tables of numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pydantic import JsonValue

from orchestration.keep.tables import Row
from orchestration.results.settings import Setting

AXIS, OTHER = "pool.size", "pool.kind"


def rows_of(
    table: Mapping[tuple[JsonValue, ...], Sequence[Sequence[float]]],
    metric: str = "average_accuracy",
    axes: Sequence[str] = (AXIS,),
) -> list[Row]:
    """Finished trials of settings by their values of `axes`, from [seeds][orders] each."""
    return [
        {
            "trial": f"{values}-{seed}-{order}",
            "method": "fwd_prompt",
            "seed": seed,
            "order": f"o{order}",
            "status": "FINISHED",
            **dict(zip(axes, values, strict=True)),
            metric: value,
        }
        for values, seeds in table.items()
        for seed, orders in enumerate(seeds)
        for order, value in enumerate(orders)
    ]


def setting(*values: JsonValue, axes: Sequence[str] = (AXIS,)) -> Setting:
    return Setting("fwd_prompt", tuple(zip(axes, values, strict=True)))
