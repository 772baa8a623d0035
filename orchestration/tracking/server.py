"""What is used of MLflow's client and of the runs that it gives back, so that it is typed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol


class RunInfo(Protocol):
    run_id: str
    status: str
    start_time: int


class LoggedMetric(Protocol):
    key: str
    step: int
    value: float
    timestamp: int


class RunData(Protocol):
    metrics: Mapping[str, float]  # the last value of each
    params: Mapping[str, str]
    tags: Mapping[str, str]


class LoggedDataset(Protocol):
    name: str
    digest: str


class DatasetInput(Protocol):
    dataset: LoggedDataset


class RunInputs(Protocol):
    dataset_inputs: Sequence[DatasetInput]


class Run(Protocol):
    info: RunInfo
    data: RunData
    inputs: RunInputs


class ExperimentInfo(Protocol):
    experiment_id: str


class Page(Iterable[Run], Protocol):
    """Some of the runs that were asked for, and where the others begin."""

    token: str | None


class Client(Protocol):
    """`mlflow.tracking.MlflowClient`."""

    def get_experiment_by_name(self, name: str) -> ExperimentInfo | None: ...
    def create_experiment(self, name: str, artifact_location: str | None = None) -> str: ...
    def search_runs(
        self, experiment_ids: list[str], filter_string: str, *, max_results: int, page_token: str | None
    ) -> Page: ...
    def create_run(self, experiment_id: str, start_time: int | None, tags: Mapping[str, str]) -> Run: ...
    def update_run(self, run_id: str, status: str) -> None: ...
    def delete_run(self, run_id: str) -> None: ...
    def set_terminated(self, run_id: str, status: str, end_time: int | None = None) -> None: ...
    def get_metric_history(self, run_id: str, key: str) -> Sequence[LoggedMetric]: ...
    def log_batch(
        self, run_id: str, metrics: Sequence[object] = (), params: Sequence[object] = (), tags: Sequence[object] = ()
    ) -> None: ...
    def log_inputs(self, run_id: str, datasets: Sequence[object]) -> None: ...
    def log_artifact(self, run_id: str, local_path: str) -> None: ...
    def log_artifacts(self, run_id: str, local_dir: str) -> None: ...
    def set_tag(self, run_id: str, key: str, value: str) -> None: ...
    def delete_tag(self, run_id: str, key: str) -> None: ...


class Monitor(Protocol):
    """`mlflow.system_metrics.system_metrics_monitor.SystemMetricsMonitor`."""

    def start(self) -> None: ...
    def finish(self) -> None: ...
