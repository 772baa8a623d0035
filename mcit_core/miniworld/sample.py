"""Rows of the pre-training mixture that no training step has seen: the sample of the models trained on it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from mcit_core.example import Example
from mcit_core.miniworld.draw import as_example
from mcit_core.miniworld.mixture import mixture_example, mixture_picture
from mcit_core.stages.digest import digest
from mcit_core.stages.fingerprint import rows_code

#: purpose -> rows and the seed of their stream
STREAMS = {"statistics": (512, 11), "retention": (300, 12)}


class MixtureSample:
    """The `mcit_core.models.Sample` of a model that was trained on the mixture."""

    def rows(self, purpose: str) -> pa.Table:
        n, stream = STREAMS[purpose]
        rng = np.random.default_rng(stream)
        rows = []
        for _ in range(n):
            picture, image = mixture_picture(rng)
            example = mixture_example(picture, rng)
            rows.append(
                {
                    "images": [image.tobytes()],
                    "instruction": example.instruction,
                    "answer": example.answer,
                    "content_kind": example.content.kind,
                }
            )
        return pa.Table.from_pylist(rows)

    def open(self, row: Mapping[str, Any]) -> Example:
        return as_example(row)

    def digest(self, purpose: str) -> str | None:
        """Rows follow from the code that draws them; a subclass with rows of its own is hashed."""
        if type(self).rows is not MixtureSample.rows or type(self).open is not MixtureSample.open:
            return None
        return digest([rows_code("mcit_core.miniworld.sample"), [*STREAMS[purpose]], purpose])
