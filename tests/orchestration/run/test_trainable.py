"""What of a worker's errors is the trial's, and what it makes of the hardware that it was given."""

from __future__ import annotations

import errno
import gc
import os
import weakref
from pathlib import Path

import pytest
import torch

from mcit_core.config import Value
from mcit_core.data.workbench import workbench_for
from mcit_core.methods import build_experiment
from orchestration.keep.files import StorageError, UnreachableError, writing
from orchestration.run.from_store import code_of
from orchestration.run.node import NodeError, check_code, is_node_fault, take_device
from orchestration.run.trainable import StageTrainable


def wrapped(code: int) -> StorageError:
    with pytest.raises(StorageError) as raised, writing("place"):
        raise OSError(code, os.strerror(code))
    return raised.value


def test_faults_of_the_node_and_of_the_trial() -> None:
    of_the_node = [
        OSError(errno.ESTALE, "Stale file handle"),
        wrapped(errno.ESTALE),
        RuntimeError("CUDA error: uncorrectable ECC error encountered"),
        UnreachableError("s3://bucket: the store does not answer"),
    ]
    of_the_trial = [
        OSError(errno.ENOSPC, "No space left on device"),
        wrapped(errno.ENOSPC),
        FileNotFoundError(errno.ENOENT, "No such file"),
        RuntimeError("shape mismatch"),
        torch.cuda.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("CUDA error: out of memory"),
        ValueError("CUDA error"),
    ]
    assert [is_node_fault(error) for error in of_the_node] == [True] * len(of_the_node)
    assert [is_node_fault(error) for error in of_the_trial] == [False] * len(of_the_trial)


def test_no_gpu_means_the_cpu_and_a_missing_one_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    take_device(0)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == ""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(NodeError, match=r"resources.gpus is 0.5, and torch .* sees no GPU in this worker"):
        take_device(0.5)


def test_a_node_with_other_code_refuses_and_says_what_differs() -> None:
    experiment = build_experiment("mini", "mini", "fwd_prompt", ("attribute", "ground"), 0)
    code = code_of(experiment)
    assert {"mcit_core.training.step", "mcit_core.protection.projection", "torch"} <= code.keys()
    check_code(experiment, code)
    other = {**code, "torch": "0.1", "mcit_core.training.step": "another"}
    with pytest.raises(NodeError, match=r"mcit_core.training.step \w+ here, another there; torch .* here, 0.1 there"):
        check_code(experiment, other)
    assert is_node_fault(NodeError("other"))


def test_after_an_error_nothing_holds_the_model(tmp_path: Path) -> None:
    """Or else the next trial of the worker would load another one beside it, into the same GPU."""
    settings: dict[str, Value] = {"train.batch_size": 10**6}
    experiment = build_experiment("mini", "mini", "sequential", ("attribute",), 0, settings)
    model = weakref.ref(workbench_for(experiment, tmp_path / "features").model)
    trial = StageTrainable.__new__(StageTrainable)  # Tune's own start wants a session
    trial.setup(
        {
            "trial": "t",
            "experiment": experiment.model_dump_json(),
            "features": str(tmp_path / "features"),
            "stages": str(tmp_path / "stages"),
            "gpus": 0,
            "code": code_of(experiment),
        }
    )
    assert model() is not None
    shown = [trial.step(), trial.step()]
    assert "train.batch_size 1000000 is larger than attribute" in str([result.get("error") for result in shown])
    gc.collect()
    assert model() is None
