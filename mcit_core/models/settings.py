"""The settings that models declare, so that a sweep file is checked without loading torch."""

from __future__ import annotations

from pydantic import Field

from mcit_core.config import Section


class MiniModelSettings(Section):
    """`model: {kind: mini, path: DIR}`."""

    path: str | None = Field(None, description="another checkpoint of the same form; null: the shipped one")
