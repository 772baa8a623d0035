"""A RUN's tables in SQL, Arrow and pandas, and the dictionary of their columns."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from mcit_core.data.workbench import Workbench
from mcit_core.methods import build_experiment
from mcit_core.training.sequence import Sequence
from orchestration.keep.tables import ACCURACY_SCHEMA, STAGES_SCHEMA, STEPS_SCHEMA, TRIAL_COLUMNS, write_tables
from orchestration.results import load
from orchestration.results.__main__ import main
from orchestration.results.columns import STAGE_NAMES, STEP_NAMES, TABLES, Column, as_markdown, columns, find
from orchestration.results.reading import read_results
from tests.support.places import ROOT

DATA = ROOT / "docs" / "data"
RUNS = sorted(path.parent.name for path in DATA.glob("*/trials.parquet"))


def within(value: object, column: Column) -> bool:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return True
    slack = 1e-6
    return (column.low is None or value >= column.low - slack) and (column.high is None or value <= column.high + slack)


def test_the_page_is_the_print(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--columns"]) == 0
    assert capsys.readouterr().out == (ROOT / "docs" / "columns.md").read_text()
    assert as_markdown().count("## ") == 4


def test_the_columns_are_those_of_the_files() -> None:
    schemas = {"accuracy": ACCURACY_SCHEMA, "stages": STAGES_SCHEMA, "steps": STEPS_SCHEMA}
    for name, schema in schemas.items():
        assert [column.name for column in TABLES[name]] == schema.names  # type: ignore[index]
    assert [column.name for column in TABLES["trials"]] == [*TRIAL_COLUMNS]


@pytest.mark.parametrize("name", RUNS)
def test_every_column_of_a_stored_run_is_in_it_and_in_range(name: str) -> None:
    results = read_results(DATA / name)
    known = columns("trials")
    for row in results.trials:
        for column, value in row.items():
            entry = find(column, known)
            assert entry is not None or column in results.axes, column
            assert entry is None or within(value, entry), (column, value)


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("fwd_prompt", {}),
        ("pegp_lora", {"projection.task_energy": 0.5}),
        ("llaca", {"grouping.threshold": 0.0}),
        ("llaca", {"averaging.kind": "per_tensor", "grouping.threshold": 0.0}),
        ("er", {}),
    ],
)
def test_all_that_stages_and_steps_leave_is_in_it(method: str, settings: dict[str, object], bench: Workbench) -> None:
    given = {"train.steps": 3, "train.batch_size": 8, **settings}
    experiment = build_experiment("tiny", "mini", method, ("attribute", "ground"), 0, given)  # type: ignore[arg-type]
    for result in Sequence(experiment, bench):
        for name, value in result.metrics.items():
            entry = find(name, STAGE_NAMES)
            assert entry is not None, name
            assert within(value, entry), (name, value)
        for name, values in result.traces.items():
            entry = find(name, STEP_NAMES)
            assert entry is not None, name
            assert all(within(value, entry) for value in values), (name, values)
            assert entry.null or None not in values, name


def test_a_question_in_sql(capsys: pytest.CaptureFixture[str]) -> None:
    run = str(DATA / "compare")
    sql = (
        "SELECT method, avg(average_accuracy) AS mean FROM trials WHERE status = 'FINISHED' GROUP BY method ORDER BY 1"
    )
    assert main([run, "--query", sql, "--form", "json"]) == 0
    found = {row["method"]: row["mean"] for row in json.loads(capsys.readouterr().out)}
    rows = read_results(DATA / "compare").finished
    for method, mean in found.items():
        values = [float(str(row["average_accuracy"])) for row in rows if row["method"] == method]
        assert mean == pytest.approx(sum(values) / len(values))
    assert main([run]) == 0
    assert f"│ {'trials':8s} │ {len(rows)}" in capsys.readouterr().out
    assert main([run, "--query", "SELECT trial FROM trials LIMIT 1", "--form", "csv"]) == 0
    assert capsys.readouterr().out.splitlines()[0] == "trial"


def test_values_keep_their_column_and_their_letters(capsys: pytest.CaptureFixture[str]) -> None:
    run = str(DATA / "pool")
    assert main([run, "--query", "SELECT 1 AS a, 2 AS b, 3 AS a", "--form", "csv"]) == 0
    assert capsys.readouterr().out == "a,b,a\n1,2,3\n"
    assert main([run, "--query", "SELECT '[/x] [b]y[/b] :smile:' AS \"[/a]\""]) == 0
    assert "[/x] [b]y[/b] :smile:" in capsys.readouterr().out
    sql = "SELECT sum(2) AS n, 0.5 AS half, 'nan'::DOUBLE AS none, 'é' AS letter"
    assert main([run, "--query", sql, "--form", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == [{"n": 2, "half": 0.5, "none": None, "letter": "é"}]
    assert main([run, "--query", "SELECT * FROM trials"]) == 0
    assert "--form csv or json has them whole" in capsys.readouterr().out


def test_tables_of_different_writes_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestration.results.reading.PAUSE", 0.0)
    for name, mark in (("trials", "one"), ("accuracy", "another")):
        write_tables(tmp_path, [{name: load(DATA / "pool").trials}], mark)
    for read in (load, read_results):
        with pytest.raises(ValueError, match="of different writes"):
            read(tmp_path)


def test_arrow_and_pandas(tmp_path: Path) -> None:
    tables = load(DATA / "pool")
    assert tables.trials == pq.read_table(DATA / "pool" / "trials.parquet")
    assert list(tables.pandas("trials")["trial"]) == tables.trials["trial"].to_pylist()
    assert tables.steps.num_rows == 0
    with pytest.raises(FileNotFoundError, match="is no RUN"):
        load(tmp_path)
    (tmp_path / "trials.parquet").write_bytes(b"PAR1")
    with pytest.raises(ValueError, match=r"trials\.parquet is damaged"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--query", "SELEC 1"], "Parser Error"),
        (["--query", "SELECT nothing FROM trials"], "nothing"),
        (["--query", "SELECT * FROM '/etc/hostname'"], "does not exist"),
        (["--query", "COPY trials TO 'out.csv'"], "Permission Error"),
        (["--query", ""], "gives no table"),
        (["--query", "SELECT 1 AS a, 2 AS a", "--form", "json"], "called a: name them with AS"),
    ],
)
def test_a_question_that_is_none(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    code = main([str(DATA / "pool"), *arguments])
    told = capsys.readouterr()
    assert code == 2
    assert said in told.err
    assert "Traceback" not in told.err
