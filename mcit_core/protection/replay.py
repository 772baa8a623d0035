"""Experience replay: which rows of earlier tasks are kept (Chaudhry et al., arXiv 1902.10486).

The buffer is a reservoir (Vitter 1985): every row seen so far is in it with the same chance, and it never holds more
than `replay.rows`. It follows from (seed, earlier tasks) alone, in the form that keeps the rows of smallest random
rank; nothing of it needs to be stored with a stage.
"""

from __future__ import annotations

import numpy as np

from mcit_core.data.order import generator
from mcit_core.data.workbench import Workbench


def reservoir(seed: int, sizes: dict[str, int], capacity: int) -> list[tuple[str, int]]:
    """(task, row) of the kept rows, `sizes` giving the number of training rows of each task seen so far. A task that
    comes later never brings back a row that was dropped."""
    ranked = [
        (rank, task, row)
        for task, size in sizes.items()
        for row, rank in enumerate(generator(seed, task, "reservoir").random(size).tolist())
    ]
    return [(task, row) for _, task, row in sorted(ranked)[:capacity]]


def buffer_bytes(bench: Workbench, kept: list[tuple[str, int]]) -> int:
    """Bytes of the kept rows as the benchmark stores them: image, instruction and answer."""
    total = 0
    for task, row in kept:
        rows = bench.rows(task, "train")
        total += int(np.prod(bench.benchmark.image_shape)) + len(rows.instructions[row]) + len(rows.answers[row])
    return total
