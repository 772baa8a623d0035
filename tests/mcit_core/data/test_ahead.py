"""Batches that are prepared before they are asked for."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest
import torch

from mcit_core.data.features import AHEAD, ahead

CPU, CUDA = torch.device("cpu"), torch.device("cuda")  # nothing is put there


def jobs(count: int, done: list[tuple[int, str]], asked: list[int] | None = None) -> Iterator[Callable[[], int]]:
    def job(number: int) -> int:
        done.append((number, threading.current_thread().name))
        return number

    for number in range(count):
        if asked is not None:
            asked.append(number)
        yield lambda number=number: job(number)  # type: ignore[misc]


@pytest.mark.parametrize("device", [CPU, CUDA])
@pytest.mark.parametrize("count", [0, 1, 2, 7])
def test_in_their_order(device: torch.device, count: int) -> None:
    done: list[tuple[int, str]] = []
    assert list(ahead(jobs(count, done), device)) == [*range(count)]
    assert [number for number, _ in done] == [*range(count)]


def test_beside_a_gpu_in_one_other_thread_and_not_too_far_ahead() -> None:
    done: list[tuple[int, str]] = []
    asked: list[int] = []
    made = ahead(jobs(9, done, asked), CUDA)
    assert next(made) == 0
    assert len(asked) == AHEAD + 1
    made.close()
    assert len({thread for _, thread in done}) == 1
    assert {thread for _, thread in done} != {threading.current_thread().name}
    alone: list[tuple[int, str]] = []
    assert next(ahead(jobs(9, alone), CPU)) == 0
    assert alone == [(0, threading.current_thread().name)]


@pytest.mark.parametrize("device", [CPU, CUDA])
def test_an_error_is_raised_where_its_batch_is(device: torch.device) -> None:
    def fail() -> int:
        raise OSError("picture 2 is gone")

    made = ahead([lambda: 1, fail, lambda: 3], device)
    assert next(made) == 1
    with pytest.raises(OSError, match="picture 2"):
        next(made)
