"""Where a sweep's numbers come from: versions, commit, data and weights."""

from __future__ import annotations

import os
import platform
import subprocess
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

import yaml
from pydantic import JsonValue

from mcit_core.choices import shown_choice
from mcit_core.config import UNTRAINED, Experiment, Value
from mcit_core.folders import write_atomic
from mcit_core.stages.digest import digest
from mcit_core.stages.fingerprint import stage_code
from mcit_core.yaml_document import SpecError, dump_yaml, load_yaml
from orchestration.keep.files import without_userinfo, writing
from orchestration.plan.spec import SweepSpec
from orchestration.plan.trials import Trial

if TYPE_CHECKING:
    from mcit_core.data.workbench import Workbench

#: what the report and MLflow say of a sweep's origin, as it stands in sweep.yaml
Provenance = dict[str, JsonValue]

#: of a RUN; its identity, beside that in sweep.yaml
IDENTITY = ".identity"
PACKAGES = ("torch", "transformers", "peft", "ray", "mlflow", "pyarrow", "numpy", "pillow", "scikit-learn")


def describe(spec: SweepSpec, trials: Sequence[Trial], storage: Path) -> Provenance:
    """Versions, commit and digests. Fills the feature cache on the way, so that workers only map it. Raises SpecError
    where a model or a benchmark of the trials cannot be loaded, or a batch is larger than a task."""
    started = time.strftime("%Y-%m-%d %H:%M:%S")  # before features are built, which can take long
    from safetensors import SafetensorError

    from mcit_core.data.workbench import shared_workbench
    from mcit_core.stages.numerics import numerics

    calculates: dict[str, str] = {}
    weights: dict[str, JsonValue] = {}
    data: dict[str, dict[str, JsonValue]] = {}
    chosen = {f"{t.experiment.benchmark} {t.experiment.model}": t.experiment for t in trials}
    for experiment in chosen.values():
        benchmark, model = shown_choice(experiment.benchmark), shown_choice(experiment.model)
        try:
            bench = shared_workbench(experiment.benchmark, experiment.model, "auto", storage / "features")
        except (ImportError, OSError, ValueError, SafetensorError) as error:
            raise SpecError(f"model {model} with benchmark {benchmark} cannot be loaded: {error}") from error
        try:
            bench.prepare(spec.tasks)
        except (OSError, ValueError) as error:
            raise SpecError(f"benchmark {benchmark} cannot be read: {error}") from error
        same = [trial.experiment for trial in trials if trial.experiment.benchmark == experiment.benchmark]
        _check_batches(bench, same, spec.tasks)
        calculates |= numerics(bench.model.device)
        weights[model] = bench.model.digest[:16]
        data[benchmark] = {task: bench.data_digest(task)[:16] for task in spec.tasks}
    versions: dict[str, JsonValue] = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    return {
        **commit(),
        "code": _code(trial.experiment for trial in trials),
        "versions": versions,
        # by name only where the sweep compares several
        "data": next(iter(data.values())) if len(data) == 1 else {**data},
        "weights": next(iter(weights.values())) if len(weights) == 1 else weights,
        "numerics": {**calculates},
        "host": platform.node(),
        "platform": platform.platform(),
        "started": started,
    }


def _check_batches(bench: Workbench, experiments: Iterable[Experiment], tasks: tuple[str, ...]) -> None:
    """Refuse a batch that is larger than a task. Raises SpecError."""
    # of joint training the batches are of all tasks together
    sizes = [one.train.batch_size for one in experiments if one.protocol not in (*UNTRAINED, "multitask")]
    counts = {task: len(bench.rows(task, "train")) for task in tasks}
    smallest = min(counts, key=counts.__getitem__)
    if sizes and max(sizes) > counts[smallest]:
        raise SpecError(
            f"train.batch_size {max(sizes)} is larger than {smallest}, which has {counts[smallest]} training rows; set "
            f"{counts[smallest]} at most"
        )


def run_id(run: Path) -> Provenance:
    """The identity of a RUN, kept for as long as its folder: MLflow knows it by that. It stands in two files, of which
    one may be lost; nothing where it is not known any more. Raises StorageError."""
    known = _identity(run)
    if known is None and not any((run / name).exists() for name in ("sweep.yaml", "journal", "trials.parquet")):
        known = uuid.uuid4().hex
    if known is None:  # damaged, or written before RUNs had one: known by its folder
        return {}
    with writing(run / IDENTITY):
        write_atomic(run / IDENTITY, f"{known} {digest(known)[:8]}".encode())
    return {"run_id": known}


def _identity(run: Path) -> str | None:
    try:
        known, *check = (run / IDENTITY).read_text(encoding="ascii").split()
        # one damaged digit makes another identity, under which MLflow would have the sweep twice
        if not check or check == [digest(known)[:8]]:
            return uuid.UUID(known).hex
    except (OSError, ValueError):
        pass
    try:
        return str(load_yaml((run / "sweep.yaml").read_text(encoding="utf-8"))["provenance"]["run_id"])
    except (OSError, UnicodeDecodeError, yaml.YAMLError, KeyError, TypeError):
        return None


def commit() -> Provenance:
    """The commit of this code and whether it was changed since; in a copy of the code alone, as a Ray job has it, what
    $MCIT_COMMIT says, or "unknown"."""
    here = Path(__file__).name
    if _git("ls-files", "--error-unmatch", here):  # or else the folder is in a repository of something else
        return {"commit": _git("rev-parse", "HEAD"), "dirty": bool(_git("status", "--porcelain"))}
    return {"commit": os.environ.get("MCIT_COMMIT") or "unknown", "dirty": False}


def _code(experiments: Iterable[Experiment]) -> str:
    """One digest of all modules that the trials run, which a copy of the code has too."""
    modules: dict[str, Value] = {}
    for experiment in experiments:
        found = stage_code(experiment, experiment.protections())["code"]
        if isinstance(found, dict):
            modules |= found
    return digest(modules)[:16]


def _git(*words: str) -> str:
    try:
        done = subprocess.run(
            ["git", *words], cwd=Path(__file__).parent, capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def write_sweep(run: Path, sweep: Mapping[str, object], provenance: Provenance) -> None:
    """sweep.yaml of a RUN, without the user name and password of a tracking URI. Raises StorageError."""
    tracking = sweep.get("tracking")
    if isinstance(tracking, dict) and isinstance(tracking.get("mlflow"), str):
        sweep = {**sweep, "tracking": {**tracking, "mlflow": without_userinfo(tracking["mlflow"])}}
    text = dump_yaml({**sweep, "provenance": provenance})
    with writing(run / "sweep.yaml"):
        write_atomic(run / "sweep.yaml", text.encode())
