"""A job in real processes that are a team, on this machine's loopback."""

from __future__ import annotations

import multiprocessing
import pickle
import traceback
from collections.abc import Callable
from datetime import timedelta
from multiprocessing.queues import Queue
from typing import Any

from mcit_core import parallel
from mcit_core.parallel import join, leave, listen
from tests.support.places import reach_plugin

HOST = "127.0.0.1"
SECONDS = 240


def _be_process(
    rank: int, size: int, ports: Queue[int], answers: Queue[Any], job: Callable[..., Any], given: Any, wait: float
) -> None:
    import torch

    torch.set_num_threads(1)
    reach_plugin()
    parallel.WAIT = timedelta(seconds=wait)
    try:
        if rank:
            team = join(rank, size, (HOST, ports.get()), HOST)
        else:
            listener = listen(HOST)
            port = listener.getsockname()[1]
            for _ in range(size - 1):
                ports.put(port)
            team = join(0, size, (HOST, port), HOST, listener)
        answers.put((rank, pickle.dumps(job(team, *given)), ""))  # tensors by value: this process ends
    except BaseException:
        answers.put((rank, None, traceback.format_exc()))
    leave()


def in_team(
    size: int, job: Callable[..., Any], *given: object, answering: int | None = None, wait: float = SECONDS
) -> list[Any]:
    """What `job(team, *given)`, a function at the top of a module, returns in each of `size` processes, or in the first
    `answering` ones, where the others end without an answer. A sum waits for `wait` seconds."""
    spawned = multiprocessing.get_context("spawn")
    ports, answers = spawned.Queue(), spawned.Queue()
    processes = [
        spawned.Process(target=_be_process, args=(i, size, ports, answers, job, given, wait)) for i in range(size)
    ]
    for process in processes:
        process.start()
    found = [answers.get(timeout=SECONDS) for _ in range(size if answering is None else answering)]
    for process in processes:
        process.join(SECONDS)
    wrong = [text for _, _, text in found if text]
    assert not wrong, wrong[0]
    return [pickle.loads(answer) for _, answer, _ in sorted(found, key=lambda told: told[0])]
