"""The machine that a worker runs on: whether it has what a trial was given, and what of an error is its fault."""

from __future__ import annotations

import errno
import os
import platform
from collections.abc import Mapping

import torch

from mcit_core.config import Experiment
from orchestration.keep.files import UnreachableError
from orchestration.run.from_store import code_of


class NodeError(RuntimeError):
    """What is wrong with a node, and no fault of the trial: other code or versions than the driver's, under which it
    would train under other keys; no GPU where trials are given one."""


def check_code(experiment: Experiment, wanted: Mapping[str, str]) -> None:
    """Raises NodeError, naming what differs."""
    found = code_of(experiment)
    other = [name for name in sorted({*wanted, *found}) if wanted.get(name) != found.get(name)]
    if other:
        parts = [f"{name} {found.get(name, 'missing')} here, {wanted.get(name, 'missing')} there" for name in other[:5]]
        more = f" and {len(other) - 5} more" if len(other) > 5 else ""
        raise NodeError(
            f"{platform.node()} has other code or versions than the sweep's driver ({'; '.join(parts)}{more}): install "
            "the same on every node"
        )


#: faults of a network file system or of the connection to it, which another node may not have
GONE = ("ESTALE", "EREMOTEIO", "ENOTCONN", "ETIMEDOUT", "ECONNRESET", "EHOSTUNREACH")
UNREACHABLE = {getattr(errno, name) for name in GONE if hasattr(errno, name)}


def is_node_fault(error: BaseException | None) -> bool:
    """Whether an error is of the worker's machine and not of the trial: a GPU that has failed (its process can use it
    no more), a file system that has gone, a store that does not answer, other code. Out of memory is of the trial."""
    if error is None:
        return False
    if isinstance(error, NodeError | UnreachableError):
        return True
    if isinstance(error, OSError) and error.errno in UNREACHABLE:
        return True
    out_of_memory = "out of memory" in str(error)
    return (isinstance(error, RuntimeError) and "CUDA error" in str(error) and not out_of_memory) or is_node_fault(
        error.__cause__
    )


#: bytes of a GPU's memory that a process on it takes beside its tensors
CONTEXT = 10**9


def take_device(gpus: float) -> None:
    """Have torch use what the trial was given: no GPU where that is none, of a part of one the same part of its memory.
    Raises NodeError where it was given one and torch sees none."""
    if not gpus:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    elif not torch.cuda.is_available():
        raise NodeError(
            f"resources.gpus is {gpus:g}, and torch {torch.__version__} sees no GPU in this worker: install a build of "
            "torch for this machine's GPUs, or set resources.gpus to 0"
        )
    elif gpus < 1:  # so that a trial that asks for too much ends itself and not its neighbour
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(max(gpus - CONTEXT / total, 0.0))
