"""The files that a trial's MLflow run carries: its experiment, and its accuracy matrix as CSV and as a picture."""

from __future__ import annotations

from pathlib import Path

from mcit_core.stages.matrix_csv import matrix_csv
from mcit_core.yaml_document import dump_yaml
from orchestration.keep.records import TrialRecord


def write_artefacts(folder: Path, record: TrialRecord) -> None:
    """experiment.yaml, accuracy_matrix.csv and, where there is a matrix, accuracy_matrix.png (accuracy in [0, 1])."""
    order = record.trial.experiment.order
    rows = zip(("untouched", *order), [record.untouched("test") or [], *record.matrix("test")], strict=False)
    (folder / "accuracy_matrix.csv").write_text(matrix_csv(order, rows))
    experiment = record.trial.experiment.model_dump(mode="json")
    (folder / "experiment.yaml").write_text(dump_yaml(experiment))
    _matrix_picture(folder / "accuracy_matrix.png", record)


def _matrix_picture(path: Path, record: TrialRecord) -> None:
    from matplotlib.figure import Figure

    matrix, order = record.matrix("test"), record.trial.experiment.order
    if not matrix:
        return
    figure = Figure(figsize=(1 + len(order), 1 + len(matrix)), layout="constrained")
    axis = figure.subplots()
    axis.imshow(
        [[float("nan") if cell is None else cell for cell in row] for row in matrix], vmin=0, vmax=1, cmap="viridis"
    )
    for i, row in enumerate(matrix):
        for j, cell in enumerate(row):
            if cell is not None:
                axis.text(j, i, f"{100 * cell:.0f}", ha="center", va="center", color="white" if cell < 0.6 else "black")
    axis.set_xticks(range(len(order)), order, rotation=30, ha="right")
    axis.set_yticks(range(len(matrix)), [f"after {task}" for task in order[: len(matrix)]])
    figure.savefig(path, dpi=90)
