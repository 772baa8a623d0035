"""Figures that others have published on a benchmark, from published.yaml beside this package."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from mcit_core.yaml_document import load_yaml

TABLE = Path(__file__).parent.parent / "published.yaml"


class Published(BaseModel):
    """What one source says of a benchmark, in per cent. `rows`: method -> metric of `mcit_core.metrics` -> figure;
    `matrix`: rows are stages, of the one method in `rows`; `convention`: what its words mean in ours, and what makes
    its figures others than a RUN's; `link`: None where the source has no address."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    benchmark: str
    tasks: list[str]
    model: str
    source: str
    link: str | None = None
    scoring: str
    convention: str
    matrix: list[list[float]] | None = None
    rows: dict[str, dict[str, float]]


@cache
def published() -> tuple[Published, ...]:
    """Every source, in the file's order."""
    return tuple(Published.model_validate(entry) for entry in load_yaml(TABLE.read_text(encoding="utf-8")))


def published_on(benchmark: str) -> list[Published]:
    """The sources on a benchmark, by its name in the registry."""
    return [source for source in published() if source.benchmark == benchmark]
