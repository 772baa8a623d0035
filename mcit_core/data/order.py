"""Streams of random numbers, one for every (seed, names), and the order of a task's rows."""

from __future__ import annotations

import numpy as np


def generator(seed: int, *names: str) -> np.random.Generator:
    """A stream of its own for every (seed, names)."""
    return np.random.default_rng([seed, *"/".join(names).encode()])


def data_order(seed: int, task: str, rows: int, batch: int, steps: int) -> np.ndarray:
    """Row numbers [steps, batch]: shuffled epochs, from (seed, task) alone."""
    rng = generator(seed, task)
    epochs = -(-steps * batch // rows)
    return np.concatenate([rng.permutation(rows) for _ in range(epochs)])[: steps * batch].reshape(steps, batch)
