"""An accuracy matrix as CSV."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def matrix_csv(tasks: Sequence[str], rows: Iterable[tuple[str, Sequence[float | None]]]) -> str:
    """A column a task and a line a stage; `rows` are (the stage's name, its accuracies in [0, 1]). An accuracy that was
    not measured is empty."""
    lines = [",".join(("stage", *tasks))]
    lines += [",".join((name, *("" if cell is None else f"{cell:.6f}" for cell in cells))) for name, cells in rows]
    return "\n".join(lines) + "\n"
