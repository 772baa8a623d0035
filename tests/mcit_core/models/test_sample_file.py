"""A file that stands for what a model was pre-trained on."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from PIL import Image

from mcit_core.choices import Choice
from mcit_core.config import Value
from mcit_core.data.workbench import Workbench
from mcit_core.methods import build_experiment
from mcit_core.models.sample_file import MOST, SampleFile
from mcit_core.stages.results import NO_SAMPLE
from mcit_core.training.sequence import Sequence
from tests.support.tiny_vlms import folder_of


def row(number: int, image: str | list[str] | None = "pictures/0.png") -> dict[str, object]:
    turns = [
        {"from": "human", "value": f"<image>\nhow many ? {number}"},
        {"from": "gpt", "value": str(number)},
        {"from": "human", "value": "sure ?"},
        {"from": "gpt", "value": "yes"},
    ]
    return {"id": number, "conversations": turns, **({} if image is None else {"image": image})}


def written(folder: Path, rows: list[dict[str, object]], lines: bool = False) -> Path:
    (folder / "pictures").mkdir(exist_ok=True)
    for number in range(2):
        Image.new("RGB", (40, 30 + number)).save(folder / "pictures" / f"{number}.png")
    file = folder / "sample.json"
    file.write_text("\n".join(map(json.dumps, rows)) if lines else json.dumps(rows))
    return file


@pytest.mark.parametrize("lines", [False, True])
def test_first_rows_for_statistics_and_last_for_retention(tmp_path: Path, lines: bool) -> None:
    rows = [row(0), row(1, ["pictures/0.png", "pictures/1.png"]), row(2, None), *map(row, range(3, 13))]
    sample = SampleFile(written(tmp_path, rows, lines))
    seen, kept = (sample.rows(purpose).to_pylist() for purpose in ("statistics", "retention"))
    assert [one["answer"] for one in seen] == [str(i) for i in range(11)]
    assert [one["answer"] for one in kept] == ["11", "12"]
    examples = [sample.open(one) for one in seen[:3]]
    assert [len(example.images) for example in examples] == [1, 2, 0]
    assert examples[1].images[1].size == (40, 31)
    assert examples[0].instruction == "how many ? 0"


def test_who_speaks_counts_and_not_who_is_first(tmp_path: Path) -> None:
    one = {"conversations": [{"from": "system", "value": "be short"}, *row(7)["conversations"]]}  # type: ignore[misc]
    sample = SampleFile(written(tmp_path, [one] * 5))
    found = sample.rows("statistics").to_pylist()[0]
    assert (found["instruction"], found["answer"]) == ("how many ? 7", "7")


def test_lines_end_where_json_lines_do(tmp_path: Path) -> None:
    file = written(tmp_path, [*map(row, range(5))], lines=True)
    text = file.read_text().replace("how many ? 1", "how\u2028many ? 1")
    file.write_text("\n" + text + "\n\n")
    assert SampleFile(file).rows("statistics")["instruction"].to_pylist()[1] == "how\u2028many ? 1"
    file.write_text(text + "\n\nno json")
    with pytest.raises(ValueError, match="is no JSON: line 7: "):
        SampleFile(file)


def test_rows_that_the_family_does_not_read_are_told_beforehand(tmp_path: Path) -> None:
    file = written(tmp_path, [row(0), row(1, None), *map(row, range(2, 6))])
    assert SampleFile(file)
    with pytest.raises(ValueError, match="row 1: 0 pictures, where the model reads 1 to 1"):
        SampleFile(file, (1, 1))


def test_of_a_large_file_as_many_as_are_needed(tmp_path: Path) -> None:
    sample = SampleFile(written(tmp_path, [*map(row, range(3000))]))
    assert {purpose: len(sample.rows(purpose)) for purpose in MOST} == MOST


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([row(0)] * 3, "has 3 rows; at least 5 are wanted"),
        ([*[row(0)] * 5, {"image": "pictures/0.png"}], "row 5, conversations: expected `image`"),
        ([*[row(0)] * 5, "text"], "row 5, all of it: expected `image`"),
        ([{**row(0), "image": [None]}] * 5, r"row 0, image\..*: expected `image`"),
        (
            [{"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": None}]}] * 5,
            r"row 0, conversations\.1\.value: expected `image`",
        ),
        ([*[row(0)] * 6, row(1, "pictures/7.png")], "row 6: there is no picture .*7.png"),
        ([{"conversations": [{"from": "human", "value": "alone"}]}] * 5, "row 0, conversations: expected `image`"),
        ([{"conversations": [{"from": "gpt", "value": "a"}] * 2}] * 5, "row 0: nobody answers a turn `from` human"),
    ],
)
def test_a_row_that_cannot_be_read_is_named(tmp_path: Path, rows: list[dict[str, object]], told: str) -> None:
    file = written(tmp_path, rows)
    with pytest.raises((ValueError, FileNotFoundError), match=rf"model\.sample: {re.escape(str(file))} {told}"):
        SampleFile(file)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"model\.sample: .*nowhere\.json cannot be read: No such file"):
        SampleFile(tmp_path / "nowhere.json")
    (tmp_path / "bytes.json").write_bytes(b"[\xff]")
    with pytest.raises(ValueError, match=r"model\.sample: .*bytes\.json is no UTF-8 \(byte 1\)"):
        SampleFile(tmp_path / "bytes.json")
    (tmp_path / "text.json").write_text("[1, ")
    with pytest.raises(ValueError, match=r"model\.sample: .*text\.json is no JSON"):
        SampleFile(tmp_path / "text.json")


def test_fwd_prompt_takes_its_pretrained_space_from_it(tmp_path: Path) -> None:
    file = written(tmp_path, [*map(row, range(20))])
    order = ("attribute", "ground")
    model: Choice = {"kind": "hf", "path": str(folder_of("llava")), "sample": str(file)}
    given: dict[str, Value] = {
        "train.steps": 2,
        "train.batch_size": 4,
        "evaluation.rows": 4,
        "evaluation.batch_size": 4,
    }
    benchmark: Choice = {"kind": "mini", "train_rows": 8, "validation_rows": 4, "test_rows": 4}
    bench = Workbench(benchmark, model, "cpu")
    results = [*Sequence(build_experiment(benchmark, model, "fwd_prompt", order, 0, given), bench)]
    assert all(NO_SAMPLE not in result.metrics for result in results)
    other = Workbench(benchmark, {"kind": "hf", "path": str(folder_of("llava"))}, "cpu")
    assert len(bench.rows("pretraining", "statistics")) == 16
    assert bench.data_digest("pretraining", "statistics") != other.data_digest("pretraining", "statistics")
    assert bench.model.digest == other.model.digest
