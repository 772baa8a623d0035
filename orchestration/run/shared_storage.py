"""Whether all nodes of the Ray cluster that was joined have the same storage."""

from __future__ import annotations

import uuid
from contextlib import suppress
from pathlib import Path

import ray
from filelock import FileLock, Timeout
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from mcit_core.yaml_document import SpecError
from orchestration.keep.files import writing


def _look(folder: str, name: str, text: str) -> tuple[str, bool]:
    """On a node: what is wrong with the folder in which the driver wrote, "" where nothing is; and whether the lock
    that the driver holds there counts for this node too."""
    place = Path(folder)
    own = place / f"{name}.{uuid.uuid4().hex}"
    try:
        if (place / name).read_text() != text:
            return "has another file there", True
        own.write_text(text)
        own.unlink()
        FileLock(place / f"{name}.lock", timeout=0).acquire()
    except Timeout:
        return "", True
    except (OSError, NotImplementedError) as error:
        return getattr(error, "strerror", None) or str(error), True
    return "", False


def check_shared(storage: Path) -> bool:
    """That every node has the same storage folder as this process. Returns whether its locks count on all of them.
    Raises SpecError, naming the nodes that have not."""
    folder = storage / ".scratch"
    name, text = f"shared-{uuid.uuid4().hex}", uuid.uuid4().hex
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    lock = FileLock(folder / f"{name}.lock", timeout=0)
    try:
        with suppress(OSError, NotImplementedError):  # a file system without locks
            lock.acquire()
        nodes = [(node["NodeID"], node["NodeManagerHostname"]) for node in ray.nodes() if node["Alive"]]
        look = ray.remote(num_cpus=0)(_look)
        on = [NodeAffinitySchedulingStrategy(node, soft=False) for node, _ in nodes]
        looks = [look.options(scheduling_strategy=node).remote(str(folder), name, text) for node in on]
        found = ray.get(looks, timeout=120)
        wrong = [f"{host}: {what}" for (_, host), (what, _) in zip(nodes, found, strict=True) if what]
    except RayTaskError as error:
        reason = str(error).strip().splitlines()[-1]
        raise SpecError(
            f"a node cannot run this project's code ({reason}): install the same package and versions on every node"
        ) from error
    except RayError as error:  # as of a node that has just gone
        raise SpecError(f"a node of the cluster does not answer: {str(error).strip().splitlines()[0]}") from error
    finally:
        lock.release()
        for file in folder.glob(f"{name}*"):
            with suppress(OSError):
                file.unlink()
    if wrong:
        raise SpecError(
            f"--storage {storage}: not every node reaches this folder ({'; '.join(wrong[:3])}); give one on a file "
            "system that all nodes share, with the same path on each"
        )
    return all(counts for _, counts in found)
