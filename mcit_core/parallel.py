"""A team: the processes that train one trial together, each a part of the rows of every batch.

The frozen model dominates and what is tuned is small, so that nothing is sharded: every process holds all of both, and
a step adds up the tuned gradients once. What leaves a step is then the same in all of them.

Sums go through the CPU (gloo), also those of a GPU's tensors: one way, which is tried on any machine. Nothing here
loads torch before there is a team.
"""

from __future__ import annotations

import os
import socket
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor
    from torch.distributed import Store  # type: ignore[attr-defined]

#: how long a process waits in a sum for the others; one that has ended is noticed at once
WAIT = timedelta(minutes=30)
#: so long where the first process evaluates between two stages while the others wait
LONG_WAIT = timedelta(days=7)
#: how long the processes of a team wait for each other when they meet
MEET = timedelta(minutes=5)


class PeerError(RuntimeError):
    """Another process of the team has ended, or does not answer."""


@dataclass(frozen=True)
class Team:
    """This process is number `rank` of `size`."""

    rank: int
    size: int

    def part(self, first: int = 0) -> slice:
        """Those of this process, every `size`-th, of some things that stand at place `first` and after it in what is
        shared out."""
        return slice((self.rank - first) % self.size, None, self.size)

    def sum(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Each tensor added up over all processes, which call this alike; shapes, types and devices stay. Raises
        PeerError."""
        if self.size == 1:
            return list(tensors)
        import torch
        import torch.distributed as dist

        sums: dict[int, Tensor] = {}
        for kind in dict.fromkeys((tensor.dtype, tensor.device) for tensor in tensors):
            places = [i for i, tensor in enumerate(tensors) if (tensor.dtype, tensor.device) == kind]
            flat = torch.cat([tensors[i].detach().flatten() for i in places]).cpu()
            try:
                dist.all_reduce(flat)
            except RuntimeError as error:  # the only one that gloo has
                raise PeerError(f"process {self.rank} of {self.size} of the trial lost another: {error}") from error
            for i, part in zip(places, flat.to(kind[1]).split([tensors[i].numel() for i in places]), strict=True):
                sums[i] = part.view_as(tensors[i])
        return [sums[i] for i in range(len(tensors))]

    def count(self, *numbers: int) -> list[int]:
        """Whole numbers, each added up over all processes. Raises PeerError."""
        if self.size == 1:
            return list(numbers)
        import torch

        found: list[int] = self.sum([torch.tensor(numbers)])[0].tolist()
        return found

    def all(self, holds: bool) -> bool:
        """Whether it holds in all processes. Raises PeerError."""
        return self.count(int(holds)) == [self.size]

    def check_alike(self, named: Mapping[str, Tensor]) -> None:
        """Raises RuntimeError, naming what differs, where the processes have not come to the same bits. Raises
        PeerError."""
        if self.size == 1:
            return
        names = sorted(named)
        if self._apart([zlib.crc32("\n".join(names).encode())]) != [0]:
            raise RuntimeError(f"the processes of this trial have come to things of other names: {', '.join(names)}")
        other = self._apart([_checksum(named[name]) for name in names])
        if any(other):
            found = ", ".join(name for name, differs in zip(names, other, strict=True) if differs)
            raise RuntimeError(
                f"the processes of this trial have come to different values of {found}: these saw the rows of one "
                "process alone and have to be added up (docs/extending.md), or else the processes' machines calculate "
                "differently; set resources.processes to 1, or to as many as one node has room for"
            )

    def _apart(self, numbers: Sequence[int]) -> list[int]:
        """For each number how many processes have another one than the mean; the same in all of them."""
        sums = self.count(*numbers)
        return self.count(*(int(total != self.size * own) for own, total in zip(numbers, sums, strict=True)))


#: one process, which needs no others
ALONE = Team(0, 1)


def _checksum(values: Tensor) -> int:
    import torch

    return zlib.crc32(values.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)


def listen(host: str) -> socket.socket:
    """A socket on a free port of this machine's address `host`, for the first process of a team."""
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.bind((host, 0))
    listener.listen()
    return listener


def join(rank: int, size: int, meeting: tuple[str, int], own_host: str, listener: socket.socket | None = None) -> Team:
    """Become process `rank` of a team of `size` that meets at the host and port `meeting`, where the first has a
    `listener`; returns when all are there. They talk over the interface of `own_host`, this machine's address, and
    no other. Raises PeerError where they do not all come."""
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    told = {"RANK": rank, "WORLD_SIZE": size, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": size}
    os.environ |= {name: str(number) for name, number in told.items()}
    os.environ["GLOO_SOCKET_IFNAME"] = _interface(own_host)
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # or else accelerate sets another number of threads and warns
    try:
        store = TCPStore(
            *meeting,
            world_size=size,
            is_master=listener is not None,
            timeout=MEET,
            wait_for_workers=False,
            master_listen_fd=None if listener is None else listener.detach(),
        )
        return _form(WAIT, store)
    except RuntimeError as error:
        raise PeerError(f"process {rank} of {size} of the trial did not find the others: {error}") from error


def launched() -> Team:
    """The team that `torchrun` has started this process in; ALONE where it has not. Raises ValueError where only a
    part of what `torchrun` sets is set, PeerError where the others do not come."""
    started = os.environ.get("WORLD_SIZE") or "1"
    if started == "1":
        return ALONE
    numbers = ("WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_PORT")
    odd = [name for name in numbers if not os.environ.get(name, "").isdecimal()]
    odd += [] if os.environ.get("MASTER_ADDR") else ["MASTER_ADDR"]
    if odd:
        raise ValueError(
            f"WORLD_SIZE is {started}, but not all that torchrun sets is there ({', '.join(odd)}): start the processes "
            "of a trial with torchrun, or unset WORLD_SIZE for one process"
        )
    import torch

    os.environ.setdefault("OMP_NUM_THREADS", "1")
    if os.environ.get("LOCAL_WORLD_SIZE") == started:  # one machine: nobody else need reach it
        os.environ.setdefault("GLOO_SOCKET_IFNAME", _interface("127.0.0.1"))
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())
    try:
        return _form(LONG_WAIT)
    except RuntimeError as error:
        raise PeerError(
            f"WORLD_SIZE is {started}, and the other processes did not come: {error}; unset WORLD_SIZE for one process"
        ) from error


def _form(wait: timedelta, store: Store | None = None) -> Team:
    """Meet the others, in MEET at most; in a sum each waits so long for them."""
    import torch.distributed as dist
    from accelerate import PartialState

    leave()
    state = PartialState(cpu=True, backend="gloo", timeout=MEET, store=store)
    assert dist.group.WORLD is not None
    dist.group.WORLD.set_timeout(wait)
    return Team(state.process_index, state.num_processes)


def leave() -> None:
    """Leave the team that this process is in, if any; the others notice."""
    import torch.distributed as dist
    from accelerate import PartialState

    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()
    PartialState._reset_state()  # which remembers the first team of a process for ever


def _interface(host: str) -> str:
    """The network interface that has an address of this machine. Raises ValueError where none has."""
    import psutil

    for name, addresses in psutil.net_if_addrs().items():
        if host in [address.address for address in addresses]:
            return str(name)
    raise ValueError(f"this machine has no network interface with the address {host}")
