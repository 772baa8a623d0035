"""A third party's benchmark is edited between two runs that share features and stages: the second sees what it gives
now."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
from PIL import Image

from mcit_core.benchmarks.mini import MiniBenchmark
from mcit_core.choices import Choice
from mcit_core.config import Value
from mcit_core.data.features import table_digest
from mcit_core.data.workbench import Workbench
from mcit_core.example import Example
from mcit_core.methods import build_experiment
from mcit_core.registry import BENCHMARKS, MODELS, Part
from mcit_core.training.sequence import Sequence
from orchestration.keep.stage_store import StageStore
from tests.support.places import ROOT

PACKAGE = '''\
"""A benchmark that reads its rows from a file."""
import json
from pathlib import Path
import pyarrow as pa
from PIL import Image

from mcit_core.example import Example

DATA = Path(__file__).parent / "rows.json"


class Theirs:
    name = "theirs"
    tasks = ("first", "second")
    exact_match = True

    def open(self, row):
        return Example((Image.frombytes("RGB", (48, 48), row["images"][0]),), row["instruction"])

    def rows(self, task, split):
        rows = json.loads(DATA.read_text())[task]
        return pa.table({
            "images": [[bytes([row["grey"]]) * (48 * 48 * 3)] for row in rows],
            "instruction": [row["instruction"] for row in rows],
            "answer": [row["answer"] for row in rows],
            "content_kind": ["word" for _ in rows],
        })

    def score(self, task, prediction, answer):
        return float(prediction == answer)

    def content_score(self, task, prediction, answer, content_kind):
        return float(prediction == answer)
'''
#: the same as `run`, in a process of its own; prints what it gives
COMMAND = """\
import json, sys
from pathlib import Path
from tests.mcit_core.data.test_rows_as_they_are import run
from tests.support.places import reach_plugin
reach_plugin()
print(json.dumps(run(Path(sys.argv[1]))))
"""
Told = dict[str, object]


def rows() -> dict[str, list[dict[str, object]]]:
    one = [{"grey": 10 * i, "instruction": "what is it ?", "answer": "a" if i % 2 else "b"} for i in range(8)]
    return {"first": one, "second": one}


def edit_rows(change: Callable[[dict[str, list[dict[str, object]]]], object]) -> Callable[[Path], None]:
    def edit(package: Path) -> None:
        found = json.loads((package / "rows.json").read_text())
        change(found)
        (package / "rows.json").write_text(json.dumps(found))

    return edit


def edit_reader(package: Path) -> None:
    text = (package / "__init__.py").read_text()
    (package / "__init__.py").write_text(text.replace('row["answer"] for', 'row["answer"].upper() for'))


EDITS = {
    "all answers": edit_rows(lambda found: [row.update(answer="c") for row in found["first"]]),
    "a row": edit_rows(lambda found: found["first"].pop()),
    "an image": edit_rows(lambda found: found["first"][3].update(grey=200)),
    "an instruction": edit_rows(lambda found: found["first"][0].update(instruction="say what it is .")),
}


def run(folder: Path) -> Told:
    """Two stages on the features and the stages in `folder`."""
    settings: dict[str, Value] = {"train.steps": 2, "train.batch_size": 4}
    experiment = build_experiment("theirs", "tiny", "sequential_prompt", ("first", "second"), 0, settings)
    bench = Workbench("theirs", "tiny", "cpu", folder / "features")
    sequence = Sequence(experiment, bench, StageStore(folder / "stages"))
    results = list(sequence)
    return {
        "keys": [stage.key for stage in sequence.chain],
        "data": bench.data_digest("first"),
        "reused": [result.reused for result in results[1:]],
        "answers": bench.rows("first", "train").answers,
        "losses": [result.traces["loss"] for result in results[1:]],
    }


def run_apart(folder: Path) -> Told:
    path = os.pathsep.join([str(folder), str(ROOT)])
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, str(folder)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert done.returncode == 0, done.stderr
    found: Told = json.loads(done.stdout.splitlines()[-1])
    return found


def differs(after: Told, before: Told) -> bool:
    return after["reused"] == [False, False] and all(after[name] != before[name] for name in ("data", "keys", "losses"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    package = tmp_path / "theirs"
    package.mkdir()
    (package / "__init__.py").write_text(PACKAGE)
    (package / "rows.json").write_text(json.dumps(rows()))
    info = tmp_path / "theirs-0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 0\n")
    (info / "entry_points.txt").write_text("[mcit_core.benchmarks]\ntheirs = theirs:Theirs\n")
    return tmp_path


def test_rows_that_were_edited_are_trained_anew_and_others_are_not(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(folder)
    before, again = run(folder), run(folder)
    assert before["reused"] == [False, False]
    assert again == {**before, "reused": [True, True]}
    data = folder / "theirs" / "rows.json"
    kept = data.read_text()
    for name, edit in EDITS.items():
        edit(folder / "theirs")
        assert differs(run(folder), before), name
        data.write_text(kept)
    assert run(folder) == again


def test_a_reader_that_was_edited_is_seen_by_the_next_run(folder: Path) -> None:
    before = run_apart(folder)
    edit_reader(folder / "theirs")
    assert differs(run_apart(folder), before)


LENIENT = """\
from mcit_core.benchmarks.mini import MiniBenchmark
from mcit_core.config import Section
from mcit_core.miniworld.sample import MixtureSample
from mcit_core.models.mini import MiniModel
from pathlib import Path
import pyarrow as pa

SKIP = Path(__file__).with_name("skip.txt")


class Settings(Section):
    lenient: bool = False


class Lenient(MiniBenchmark):
    name = "lenient"
    Settings = Settings

    def __init__(self, settings=None):
        super().__init__({"train": 16, "validation": 4, "test": 6})
        self.lenient = settings is not None and settings.lenient

    def score(self, task, prediction, answer):
        return 1.0 if self.lenient else super().score(task, prediction, answer)


class Skipping(MixtureSample):
    def rows(self, purpose: str) -> pa.Table:
        return super().rows(purpose).slice(int(SKIP.read_text()), 24)


class Sampled(MiniModel):
    def __init__(self, device):
        super().__init__(device)
        self.sample = Skipping()
"""


def test_the_scorer_and_the_models_own_sample_are_in_the_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lenient_parts.py").write_text(LENIENT)
    (tmp_path / "skip.txt").write_text("0")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(BENCHMARKS.built_in, "lenient", Part("lenient_parts:Lenient"))
    monkeypatch.setitem(MODELS.built_in, "sampled", Part("lenient_parts:Sampled"))
    store = StageStore(tmp_path / "stages")

    def untouched(benchmark: Choice) -> tuple[list[str], float, list[float]]:
        settings: dict[str, Value] = {"train.steps": 1, "train.batch_size": 4}
        made = build_experiment(benchmark, "sampled", "sequential_prompt", ("attribute",), 0, settings)
        bench = Workbench(benchmark, "sampled", "cpu", tmp_path / "features")
        sequence = Sequence(made, bench, store)
        results = list(sequence)
        keys = [stage.key for stage in sequence.chain]
        return keys, results[0].metrics["pretraining_accuracy"], [cell.accuracy for cell in results[0].accuracy]

    strict, lenient = untouched("lenient"), untouched({"kind": "lenient", "lenient": True})
    assert set(lenient[2]) == {1.0}
    assert set(strict[2]) != {1.0}
    assert lenient[1] == 1.0 != strict[1]
    (tmp_path / "skip.txt").write_text("30")  # other rows of the model's own sample
    other = untouched("lenient")
    assert other[0] != strict[0]
    assert other[1] != strict[1]


class Shaded(MiniBenchmark):
    """Its pictures are made where a row is opened."""

    shade = 0

    def __init__(self, shade: int = 0) -> None:
        super().__init__({"train": 8, "validation": 2, "test": 2})
        self.shade = shade

    def open(self, row: Mapping[str, Any]) -> Example:
        return Example((Image.new("RGB", (48, 48), (self.shade,) * 3),), row["instruction"])


def test_who_opens_rows_in_a_way_of_its_own_is_hashed() -> None:
    assert MiniBenchmark().digest("attribute", "train") is not None
    assert Shaded().digest("attribute", "train") is None


def test_features_are_of_what_opens_the_rows(tmp_path: Path) -> None:
    """Two benchmarks with the same index, told apart by their choice; each was served the other's features."""
    seen = []
    choices: list[tuple[Choice, int]] = [("tiny", 0), ({"kind": "mini", "train_rows": 8}, 255)]
    for name, shade in choices:
        bench = Workbench(name, "tiny", "cpu", tmp_path)
        bench.benchmark = Shaded(shade)
        seen.append(bench.rows("attribute", "train")[torch.arange(4)].query_image)
    assert not torch.equal(*seen)


def test_a_digest_tells_where_a_row_ends_and_whether_a_file_has_changed(tmp_path: Path) -> None:
    texts = {"instruction": ["?", "?"], "answer": ["a", "b"], "content_kind": ["k", "k"]}

    def of(images: list[list[object]]) -> str:
        return table_digest(pa.table({"images": images, **texts}))

    assert of([[b"a", b"b"], [b"c"]]) != of([[b"a"], [b"b", b"c"]])
    assert of([[b"ab"], [b"c"]]) != of([[b"a"], [b"bc"]])
    picture = tmp_path / "one.png"
    picture.write_bytes(b"1")
    before = of([[str(picture)], [str(picture)]])
    assert before == of([[str(picture)], [str(picture)]])
    picture.write_bytes(b"22")
    assert of([[str(picture)], [str(picture)]]) != before
