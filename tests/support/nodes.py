"""A Ray cluster of two nodes on this machine, one of which can be killed."""

from __future__ import annotations

from typing import Self

from ray.cluster_utils import Cluster

MEMORY = {"object_store_memory": 80 * 2**20, "include_dashboard": False}


class TwoNodes:
    """A head and a second node, a worker's place on each. The nodes' workers get the environment of this process."""

    def __enter__(self) -> Self:
        self._cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, **MEMORY})
        self.add()
        return self

    def __exit__(self, *_: object) -> None:
        self._cluster.shutdown()

    @property
    def address(self) -> str:
        return str(self._cluster.address)

    def add(self) -> None:
        self._node = self._cluster.add_node(num_cpus=1, **MEMORY)

    def kill(self) -> None:
        """SIGKILL to the second node's processes, its workers end with it."""
        self._cluster.remove_node(self._node, allow_graceful=False)
