"""The study beside the results is what Optuna's dashboard shows: settings that have ended, each once."""

from __future__ import annotations

import random
from pathlib import Path

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import StudyDirection

from orchestration.plan.trials import Trial
from tests.support.searching import run_search, smooth, write_sweep_file


def study(run: Path) -> optuna.Study:
    return optuna.load_study(study_name="s", storage=JournalStorage(JournalFileBackend(str(run / "study.log"))))


@pytest.mark.parametrize("torn", [0, 30])
def test_the_study_of_a_finished_search(torn: int, tmp_path: Path) -> None:
    def truth(trial: Trial) -> list[list[float]]:
        if float(str(trial.settings["train.lr"])) > 0.05:
            raise ArithmeticError("diverged")
        return smooth(trial)

    objectives = {"average_accuracy": "maximize", "forgetting": "minimize"}
    search = {"kind": "optuna", "trials": 12, "objectives": objectives, "constraints": {"forgetting": 0.2}}
    spec = write_sweep_file(tmp_path, search=search)
    records = run_search(spec, tmp_path / "run", 3, random.Random(0), truth, deaths=2)
    if torn:
        file = tmp_path / "run" / "study.log"
        file.write_bytes(file.read_bytes()[:-torn])
        (tmp_path / "run" / "study.log.lock").symlink_to("gone")
        records = run_search(spec, tmp_path / "run", 3, random.Random(0), truth)
    found = study(tmp_path / "run")
    assert [trial.user_attrs["setting"] for trial in found.trials] == list(range(12))
    assert {trial.state.name for trial in found.trials} == {"COMPLETE", "FAIL"}
    assert found.directions == [StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE]
    for trial in found.trials:
        (record,) = records.of_setting(trial.number)
        if trial.state.name == "COMPLETE":
            metrics = records.metrics(record, "validation")
            assert trial.values == [metrics["average_accuracy"], metrics["forgetting"]]
            assert trial.constraints == {"forgetting": trial.values[1] - 0.2}
