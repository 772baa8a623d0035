"""The settings that benchmarks of files declare."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from mcit_core.config import Section


class FilesSettings(Section):
    """`benchmark: {kind: ucit, root: DIR}`."""

    root: str = Field(description="the folder of the benchmark's files")
    images: str | None = Field(
        None, description="the folder that pictures' paths begin in; null: the root, then a task's"
    )
    train_rows: int | None = Field(None, ge=1, description="training rows of a task, drawn by subset_seed; null: all")
    test_rows: int | None = Field(None, ge=1, description="test rows of a task, drawn by subset_seed; null: all")
    validation_share: float = Field(
        0.02, gt=0, lt=1, description="of a task's training file, drawn by subset_seed, where it has no validation file"
    )
    subset_seed: int = Field(0, ge=0, description="what rows are drawn by; the same ones in every trial")
    on_bad_row: Literal["error", "skip"] = Field(
        "error", description="a row that cannot be read, or whose picture is missing: refuse the data, or leave it out"
    )
    scoring: Literal["strict", "published"] = Field(
        "strict", description="the data set's own rule, or what the benchmark's repository computes"
    )
    aliases: dict[str, str] = Field({}, description="task -> the name of its folder, where that is another one")


class CoinSettings(FilesSettings):
    """`benchmark: {kind: coin, root: DIR}`."""

    instructions: Literal["Original", "Diverse", "10Type"] = Field("Original", description="which of its wordings")
