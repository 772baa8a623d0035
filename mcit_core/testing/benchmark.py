"""What every benchmark keeps."""

from __future__ import annotations

import json
from functools import cache
from typing import ClassVar

import pyarrow as pa
import pytest

from mcit_core.benchmarks import Benchmark, TellsRows, load_benchmark
from mcit_core.choices import Choice
from mcit_core.data.features import table_digest

COLUMNS = ("images", "instruction", "answer", "content_kind")
SPLITS = ("train", "validation", "test")


@cache
def _tables(benchmark: str) -> dict[tuple[str, str], pa.Table]:
    made = load_benchmark(json.loads(benchmark))
    return {(task, split): made.rows(task, split) for task in made.tasks for split in SPLITS}


class BenchmarkContract:
    """`benchmark`: the registered name, or {kind: NAME, ...}; small, since every split of every task is read twice."""

    benchmark: ClassVar[Choice]

    @pytest.fixture
    def made(self) -> Benchmark:
        return load_benchmark(self.benchmark)

    @pytest.fixture
    def tables(self) -> dict[tuple[str, str], pa.Table]:
        return _tables(json.dumps(self.benchmark))

    def test_its_tasks_have_names_of_their_own(self, made: Benchmark) -> None:
        assert made.tasks
        assert len(set(made.tasks)) == len(made.tasks)
        assert not {"pretraining", "multitask"} & {*made.tasks}

    def test_every_split_has_rows_of_the_form(self, made: Benchmark, tables: dict[tuple[str, str], pa.Table]) -> None:
        for place, table in tables.items():
            assert table.num_rows > 0, place
            assert {*COLUMNS} <= {*table.column_names}, place
            for row in table.slice(0, 8).to_pylist():
                example = made.open(row)
                assert len(example.images) == len(row["images"]), place
                assert all(min(image.size) > 0 for image in example.images), place
                assert example.instruction, place
            assert all(table["answer"].to_pylist()), place

    def test_rows_are_the_same_at_every_call(self, made: Benchmark, tables: dict[tuple[str, str], pa.Table]) -> None:
        again = load_benchmark(self.benchmark)
        for (task, split), table in tables.items():
            assert table_digest(again.rows(task, split)) == table_digest(table), (task, split)
            if isinstance(made, TellsRows) and isinstance(again, TellsRows):
                assert made.digest(task, split) == again.digest(task, split)

    def test_what_it_tells_of_rows_differs_where_they_do(
        self, made: Benchmark, tables: dict[tuple[str, str], pa.Table]
    ) -> None:
        if isinstance(made, TellsRows):
            said = {place: made.digest(*place) for place in tables}
            held = {place: table_digest(table) for place, table in tables.items()}
            for one in tables:
                for other in tables:
                    assert said[one] is None or (said[one] == said[other]) <= (held[one] == held[other]), (one, other)

    def test_train_and_test_share_no_row(self, made: Benchmark, tables: dict[tuple[str, str], pa.Table]) -> None:
        for task in made.tasks:
            rows = {
                split: {
                    (*map(str, images), instruction)
                    for images, instruction in zip(
                        *(tables[task, split][name].to_pylist() for name in COLUMNS[:2]), strict=True
                    )
                }
                for split in SPLITS
            }
            for split in ("validation", "test"):
                shared = rows["train"] & rows[split]
                assert len(shared) <= 0.02 * len(rows[split]), (task, split, len(shared))

    def test_a_models_own_sample_is_scored_too(self, made: Benchmark) -> None:
        """Its rows are of no task: they are asked as task `pretraining`."""
        assert made.score("pretraining", "red", "red") == 1
        assert made.score("pretraining", "nothing of the kind", "red") == 0
        assert made.content_score("pretraining", "red", "red", "colour") == 1
        assert 0 <= made.content_score("pretraining", "red", "red", "a kind that no task has") <= 1

    def test_an_answer_is_right_for_itself(self, made: Benchmark, tables: dict[tuple[str, str], pa.Table]) -> None:
        for (task, _), table in tables.items():
            kinds = table["content_kind"].to_pylist()
            for answer, kind in zip(table["answer"].to_pylist(), kinds, strict=True):
                assert made.score(task, answer, answer) == 1
                assert made.content_score(task, answer, answer, kind) == 1
                assert 0 <= made.score(task, "nothing of the kind", answer) < 1
                assert 0 <= made.content_score(task, "nothing of the kind", answer, kind) < 1
