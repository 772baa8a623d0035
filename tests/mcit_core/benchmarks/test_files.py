"""Public formats and anybody's folder as benchmarks: what is read, what is refused, what is drawn."""

from __future__ import annotations

import codecs
import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mcit_core.benchmarks import Points, load_benchmark, mean_points, scored
from mcit_core.benchmarks.blind import Blind
from mcit_core.benchmarks.files import FilesBenchmark
from mcit_core.benchmarks.json_rows import BadRow, read_objects, rows_of
from mcit_core.data.features import table_digest
from mcit_core.data.workbench import Workbench
from mcit_core.methods import build_experiment
from mcit_core.stages.results import UNTOUCHED
from mcit_core.testing import BenchmarkContract
from mcit_core.training.sequence import Sequence
from orchestration.keep.stage_store import StageStore
from orchestration.run.from_store import trial_key
from tests.support import public_data


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {kind: make(tmp_path_factory.mktemp(kind)) for kind, make in public_data.FORMS.items()}


def made(kind: str, root: Path, **settings: Any) -> FilesBenchmark:
    found = load_benchmark({"kind": kind, "root": str(root), **settings})
    assert isinstance(found, FilesBenchmark)
    return found


@pytest.mark.parametrize("kind", public_data.FORMS)
def test_the_contract(kind: str, folders: dict[str, Path]) -> None:
    """The shipped suite, on a folder that is only there while the tests run."""

    class Suite(BenchmarkContract):
        benchmark = {"kind": kind, "root": str(folders[kind])}  # noqa: RUF012

    suite = Suite()
    here = load_benchmark(Suite.benchmark)
    tables = {(task, split): here.rows(task, split) for task in here.tasks for split in ("train", "validation", "test")}
    suite.test_its_tasks_have_names_of_their_own(here)
    suite.test_every_split_has_rows_of_the_form(here, tables)
    suite.test_rows_are_the_same_at_every_call(here, tables)
    suite.test_what_it_tells_of_rows_differs_where_they_do(here, tables)
    suite.test_train_and_test_share_no_row(here, tables)
    suite.test_a_models_own_sample_is_scored_too(here)


@pytest.mark.parametrize(
    ("kind", "tasks"),
    [
        ("coin", ("ScienceQA", "TextVQA", "GQA", "Grounding", "VQAv2")),
        ("ucit", ("ImageNet-R", "ArxivQA", "VizWiz", "IconQA", "CLEVR-Math", "Flickr30k")),
        ("mllm_dcl", ("RS", "Med", "AD", "Sci", "Fin")),
        ("mllm_acl", ("OCR", "VP")),
        ("llava_json", ("colours", "letters")),
    ],
)
def test_tasks_are_found_under_the_names_of_all_copies(
    kind: str, tasks: tuple[str, ...], folders: dict[str, Path]
) -> None:
    benchmark = made(kind, folders[kind])
    assert benchmark.tasks == tasks
    for task in tasks:
        assert benchmark.rows(task, "test").num_rows == 8
        assert benchmark.rows(task, "train").num_rows + benchmark.rows(task, "validation").num_rows == 24


def test_every_gold_is_right_by_both_rules_where_it_can_be(folders: dict[str, Path]) -> None:
    for kind in public_data.FORMS:
        for scoring in ("strict", "published"):
            benchmark = made(kind, folders[kind], scoring=scoring)
            for task in benchmark.tasks:
                for row in benchmark.rows(task, "test").to_pylist():
                    points = benchmark.score_row(task, row["answer"], row["answer"], row["scoring"])
                    lossy = (task, scoring) == ("Grounding", "published")  # its last digit is cut off
                    assert points == 1 or lossy, (kind, task, scoring, row)
                    assert benchmark.content_row(task, row["answer"], row["answer"], row["scoring"]) == 1


def test_strict_and_published_differ_where_the_repository_does(folders: dict[str, Path]) -> None:
    published = made("coin", folders["coin"], scoring="published")
    strict = made("coin", folders["coin"])
    assert published.score("ScienceQA", "a cat, so B", "A") == 1
    assert strict.score("ScienceQA", "a cat, so B", "A") == 0
    assert strict.content_score("ScienceQA", "b", "B", "") == 1
    assert not strict.exact_match
    assert made("llava_json", folders["llava_json"]).exact_match


def test_right_content_in_the_wrong_form(folders: dict[str, Path]) -> None:
    benchmark = made("llava_json", folders["llava_json"])
    assert benchmark.score("colours", "Red.", "red") == 0
    assert benchmark.content_score("colours", "Red.", "red", "") == 1
    assert benchmark.content_score("colours", "reddish", "red", "") == 0


def test_validation_comes_out_of_training_and_subsets_are_drawn_by_seed(folders: dict[str, Path]) -> None:
    root = folders["llava_json"]
    ids = {
        (seed, split): made("llava_json", root, validation_share=0.25, subset_seed=seed)
        .rows("colours", split)["id"]
        .to_pylist()
        for seed in (0, 1)
        for split in ("train", "validation", "test")
    }
    assert [len(ids[0, split]) for split in ("train", "validation", "test")] == [18, 6, 8]
    assert {*ids[0, "train"]} | {*ids[0, "validation"]} == {*ids[1, "train"]} | {*ids[1, "validation"]}
    assert ids[0, "validation"] != ids[1, "validation"]
    assert ids[0, "train"] == sorted(ids[0, "train"])  # in the file's order
    few = made("llava_json", root, train_rows=5, test_rows=3)
    assert [few.rows("colours", split).num_rows for split in ("train", "test")] == [5, 3]
    assert {*few.rows("colours", "test")["id"].to_pylist()} < {*ids[0, "test"]}


def test_the_test_rows_have_the_pictures_of_the_test(tmp_path: Path) -> None:
    """MLLM-CL's ability tasks number the pictures of both alike."""
    root = public_data.mllm_acl(tmp_path / "acl")
    shutil.copy(root / "OCR" / "images" / "train_0000.png", root / "OCR" / "images" / "test_0000.png")
    shutil.copy(root / "OCR_test" / "images" / "test_0000.png", root / "OCR_test" / "images" / "train_0000.png")
    benchmark = made("mllm_acl", root)
    folders = {
        split: {Path(p).parts[-3] for row in benchmark.rows("OCR", split)["images"].to_pylist() for p in row}
        for split in ("train", "test")
    }
    assert folders == {"train": {"OCR"}, "test": {"OCR_test"}}


def test_what_decides_an_index_is_in_its_key(tmp_path: Path) -> None:
    root = public_data.llava_json(tmp_path / "mine")
    told = "tasks: {mine: {train: colours/train.json, test: colours/test.json, suffix: ' %s'}}\n"
    for word in ("One.", "Two."):
        (root / "benchmark.yaml").write_text(told % word)
        texts = made("llava_json", root).rows("mine", "test")["instruction"].to_pylist()
        assert all(text.endswith(word) for text in texts)


def test_no_validation_row_is_trained_on_whatever_turns_bad_or_comes_between(tmp_path: Path) -> None:
    root = public_data.llava_json(tmp_path / "mine", train=60, test=8)
    path, folder = root / "colours" / "train.json", root / "colours"

    def ids(split: str) -> set[str]:
        benchmark = made("llava_json", root, validation_share=0.2, on_bad_row="skip")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return {*benchmark.rows("colours", split)["id"].to_pylist()}

    validation = ids("validation")
    (folder / "images" / f"train_{int(min(ids('train'))):04d}.png").unlink()
    assert ids("validation") == validation
    assert not ids("train") & validation
    rows = json.loads(path.read_text())
    (folder / "validation.json").write_text(json.dumps(rows[:5]))
    path.write_text(json.dumps(rows[5:]))
    assert not ids("train") & ids("validation")
    (folder / "validation.json").unlink()
    assert not ids("train") & ids("validation")
    assert ids("train") | ids("validation") <= {row["id"] for row in rows[5:]}


def test_several_golds_are_right_by_every_rule(tmp_path: Path) -> None:
    root = public_data.llava_json(tmp_path / "mine", train=6, test=4)
    path = root / "colours" / "test.json"
    rows = json.loads(path.read_text())
    for row in rows:
        row["answer"] = [row["answer"], "Rot"]
    path.write_text(json.dumps(rows))
    benchmark = made("llava_json", root)
    row = benchmark.rows("colours", "test").to_pylist()[0]
    for said, points in ((row["answer"], 1), ("Rot", 1), ("rot", 0)):
        assert benchmark.score_row("colours", said, row["answer"], row["scoring"]) == points
    assert benchmark.content_row("colours", "rot", row["answer"], row["scoring"]) == 1


@pytest.mark.parametrize(
    ("said", "points"),
    [
        ("red", Points(1, 1, 1, 1)),
        ("blue", Points(0, 0, 0, 1)),
        ("Red.", Points(1, 1, 0, 1)),
        ("it is red", Points(1, 1, 0, 0)),
    ],
)
def test_a_published_rule_has_the_strict_one_and_the_form_beside_it(said: str, points: Points, tmp_path: Path) -> None:
    root = public_data.mllm_dcl(tmp_path / "dcl")
    benchmark = made("mllm_dcl", root, scoring="published")
    row = benchmark.rows("RS", "test").to_pylist()[0]
    told = json.dumps({**json.loads(row["scoring"]), "golds": ["red"]})
    for one in (benchmark, Blind(benchmark)):
        assert scored(one, "RS", said, "red", "", told) == points


def test_means_are_weighted_and_a_missing_score_is_missing() -> None:
    assert mean_points([Points(1, 1, 0, 1), Points(0, 1, 0, 0)], [3, 1]) == Points(0.75, 1, 0, 0.75)
    assert mean_points([Points(1, 1, 0, 1), Points(0, 1)]) == Points(0.5, 1, None, None)


def test_ten_annotators_and_boxes_that_are_lists(tmp_path: Path) -> None:
    root = public_data.coin(tmp_path / "coin")
    path = root / "Instructions_Original" / "VQAv2" / "val.json"
    rows = json.loads(path.read_text())
    for row in rows:
        row["answers"] = [{"answer": row["answer"]}] * 3 + [{"answer": "grey"}] * 7
        del row["answer"]
    path.write_text(json.dumps(rows))
    benchmark = made("coin", root)
    row = benchmark.rows("VQAv2", "test").to_pylist()[0]
    assert benchmark.score_row("VQAv2", row["answer"], row["answer"], row["scoring"]) == pytest.approx(0.9)
    assert benchmark.content_row("VQAv2", "Grey", row["answer"], row["scoring"]) == 1
    path = root / "Instructions_Original" / "Grounding" / "test.json"
    rows = json.loads(path.read_text())
    rows[0]["answer_bbox"], rows[1]["answer_bbox"] = [0, 0, 0.5, 0.5], "left"
    path.write_text(json.dumps(rows))
    with pytest.raises(ValueError, match=r"row 1: by the rule iou(_coin)? the gold is no box of four numbers: 'left'"):
        made("coin", root).rows("Grounding", "test")


@pytest.mark.parametrize("said", ["", "the", "?", "An"])
def test_an_answer_of_nothing_has_no_content(said: str, folders: dict[str, Path]) -> None:
    """The article A is dropped by the normalisation, and so is the letter."""
    benchmark = made("coin", folders["coin"])
    assert benchmark.content_score("ScienceQA", said, "A", "") == 0
    assert benchmark.content_score("ScienceQA", "a", "A", "") == 1


def test_odd_files_and_names(tmp_path: Path) -> None:
    root = public_data.llava_json(tmp_path / "mine", train=6, test=4)
    path = root / "colours" / "test.json"
    rows = json.loads(path.read_text())
    rows[2]["image"] = "x" * 5000
    path.write_text(json.dumps(rows))
    with pytest.raises(ValueError, match="row 2: there is no picture xxx"):
        made("llava_json", root).rows("colours", "test")
    path.write_text(json.dumps({"data": rows}, indent=1))
    with pytest.raises(ValueError, match=r"1 rows cannot be read: .*an object over several lines"):
        made("llava_json", root).rows("colours", "test")
    path.write_text("[]")
    with pytest.raises(ValueError, match=r"test\.json leaves no row for test"):
        made("llava_json", root).rows("colours", "test")
    lines = tmp_path / "deep.jsonl"
    lines.write_text("[" * 100_000 + "\n")
    assert isinstance(next(iter(read_objects(lines)))[1], BadRow)


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/nowhere")
    root = public_data.llava_json(tmp_path / "mine", train=6, test=4)
    assert made("llava_json", root).rows("colours", "test").num_rows == 4


def test_an_index_is_kept_and_made_again_when_its_file_or_a_picture_changes(tmp_path: Path) -> None:
    root = public_data.llava_json(tmp_path / "mine", train=6, test=4)
    first = made("llava_json", root).rows("colours", "test")
    assert made("llava_json", root).rows("colours", "test").equals(first)
    path = root / "colours" / "test.json"
    rows = json.loads(path.read_text())
    rows[0]["answer"] = "purple"
    path.write_text(json.dumps(rows))
    assert made("llava_json", root).rows("colours", "test")["answer"][0].as_py() == "purple"
    (root / "colours" / "images" / "test_0001.png").unlink()
    with pytest.raises(
        ValueError, match=r"test\.json: 1 rows cannot be read: row 1: there is no picture images/test_0001\.png"
    ):
        made("llava_json", root).rows("colours", "test")
    Image.new("RGB", (48, 48)).save(root / "colours" / "images" / "test_0001.png")  # now it has come
    assert made("llava_json", root).rows("colours", "test").num_rows == 4


def test_bad_rows_are_refused_with_their_places_or_left_out(tmp_path: Path) -> None:
    root = public_data.llava_json(tmp_path / "mine", train=6, test=4)
    path = root / "colours" / "train.json"
    rows = json.loads(path.read_text())
    rows[1]["conversations"].append({"from": "gpt", "value": "again"})
    rows[3]["image"] = "images/gone.png"
    del rows[4]["conversations"]
    path.write_text(json.dumps(rows))
    with pytest.raises(
        ValueError, match=r"train\.json: 3 rows cannot be read: row 1: conversations: turns out of order"
    ):
        made("llava_json", root).rows("colours", "train")
    skipping = made("llava_json", root, on_bad_row="skip", validation_share=0.3)
    with pytest.warns(UserWarning, match=r"3 rows are left out"):
        assert skipping.rows("colours", "train").num_rows + skipping.rows("colours", "validation").num_rows == 3


def test_lines_marks_of_order_and_windows(tmp_path: Path) -> None:
    """JSON lines, a byte order mark, CRLF, blank lines, characters beyond ASCII, a broken line."""
    lines = [json.dumps({"question_id": f"{i:03d}", "text": "Farbe?", "answer": "grün"}) for i in range(3)]
    path = tmp_path / "test.jsonl"
    path.write_bytes(codecs.BOM_UTF8 + "\r\n".join([*lines, "", "{broken", ""]).encode())
    found = [*read_objects(path)]
    assert [number for number, _ in found] == [1, 2, 3, 5]
    assert isinstance(found[-1][1], BadRow)
    (row,) = rows_of(found[0][1], 1)
    assert (row.id, row.golds, row.images) == ("000", ["grün"], [])


def test_an_array_that_is_cut_short_says_where(tmp_path: Path) -> None:
    path = tmp_path / "train.json"
    path.write_text(json.dumps([{"id": i} for i in range(5)])[:-12])
    found = [*read_objects(path)]
    assert [number for number, _ in found] == [0, 1, 2, 3, 4]
    assert isinstance(found[-1][1], BadRow)
    path.write_bytes(codecs.BOM_UTF8 + b"\n[]")
    assert not [*read_objects(path)]  # the first task's replay file of MLLM-CL is empty


def test_a_conversation_is_a_row_for_each_answer_and_is_not_parted(tmp_path: Path) -> None:
    turns = [
        {"from": who, "value": text}
        for who, text in [("human", "<image>\na ?"), ("gpt", "1"), ("human", "b ?"), ("gpt", "2")]
    ]
    first, second = rows_of({"id": 7, "image": "x.png", "conversations": turns}, 0)
    assert (first.instruction, first.golds, first.history) == ("a ?", ["1"], [])
    assert (second.instruction, second.golds, second.history) == ("b ?", ["2"], [("a ?", "1")])
    assert (first.id, second.id) == ("7#0", "7#1")
    root = public_data.llava_json(tmp_path / "mine", train=12, test=4)
    path = root / "colours" / "train.json"
    rows = json.loads(path.read_text())
    for row in rows:
        row["conversations"] += [{"from": "human", "value": "sure ?"}, {"from": "gpt", "value": "yes"}]
    path.write_text(json.dumps(rows))
    benchmark = made("llava_json", root, validation_share=0.3)
    ids = [
        {name.partition("#")[0] for name in benchmark.rows("colours", split)["id"].to_pylist()}
        for split in ("train", "validation")
    ]
    assert not ids[0] & ids[1]
    row = benchmark.rows("colours", "train").to_pylist()[1]
    assert benchmark.open(row).history == (
        ("What color is the picture?" + public_data.WORD, row["history"][0]["answer"]),
    )


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ([1], "expected an object with keys, got list"),
        ({"conversations": []}, "expected a list of turns"),
        ({"conversations": [{"from": "human"}]}, "turns with `from` and `value`"),
        ({"conversations": [{"from": "bot", "value": "x"}]}, "a turn from 'bot'"),
        ({"conversations": [{"from": "human", "value": "x"}]}, "turns out of order"),
        ({"conversations": [{"from": "human", "value": "x"}, {"from": "gpt", "value": " "}]}, "an empty answer"),
        (
            {"conversations": [{"from": "human", "value": "<image>"}, {"from": "gpt", "value": "x"}]},
            "an empty question",
        ),
        ({"text": "q"}, "no answer"),
        ({"text": "q", "answer": ""}, "no answer"),
        ({"text": "q", "answer": []}, "no answer"),
        ({"text": "q", "answer": None}, "no answer"),
        ({"answer": "a"}, "no question"),
        ({"text": "<image>", "answer": "a"}, "an empty question"),
        ({"text": "q", "answer": "a", "image": 3}, "image: expected a path"),
        ({"text": "q", "answer": "a", "image": ["", "b"]}, "image: expected a path"),
    ],
)
def test_what_is_no_row_says_why(row: object, why: str) -> None:
    with pytest.raises(BadRow, match=why):
        rows_of(row, 0)


def test_numbers_as_answers_and_ids_are_texts_and_a_leading_gpt_turn_is_dropped() -> None:
    (row,) = rows_of({"question_id": 12, "text": "how many ?", "answer": 3, "image": None}, 0)
    assert (row.id, row.golds, row.images) == ("12", ["3"], [])
    (row,) = rows_of({"question_id": "00000006", "text": "?", "answers": [{"answer": "a"}, {"answer": "b"}]}, 0)
    assert (row.id, row.golds) == ("00000006", ["a", "b"])
    turns = [{"from": who, "value": who} for who in ("gpt", "human", "gpt")]
    (row,) = rows_of({"conversations": turns}, 5)
    assert (row.id, row.instruction, row.golds) == ("5", "human", ["gpt"])


def test_pictures_of_every_make_are_read_in_colour_and_broken_ones_named(tmp_path: Path) -> None:
    root = public_data.llava_json(tmp_path / "mine", train=6, test=4)
    benchmark, images = made("llava_json", root), root / "colours" / "images"
    row = benchmark.rows("colours", "test").to_pylist()[0]
    pixels = np.zeros((20, 30), dtype=np.uint8)
    for mode in ("L", "RGBA", "CMYK", "P", "1", "LA", "I;16"):
        path = images / f"{mode.replace(';', '')}.{'tif' if mode == 'CMYK' else 'png'}"
        (Image.new(mode, (30, 20)) if mode == "I;16" else Image.fromarray(pixels).convert(mode)).save(path)
        (picture,) = benchmark.open({**row, "images": [str(path)]}).images
        assert (picture.mode, picture.size) == ("RGB", (30, 20)), mode
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    frames[0].save(images / "moves.gif", save_all=True, append_images=frames[1:])
    (picture,) = benchmark.open({**row, "images": [str(images / "moves.gif")]}).images
    assert picture.getpixel((0, 0))[0] > 200  # type: ignore[index]
    whole = (images / "test_0000.png").read_bytes()
    (images / "cut.png").write_bytes(whole[: len(whole) // 2])
    (images / "text.png").write_text("no picture")
    for name in ("cut.png", "text.png"):
        with pytest.raises(ValueError, match=f"{name} cannot be read as a picture"):
            benchmark.open({**row, "images": [str(images / name)]})


def test_a_wide_picture_is_read(tmp_path: Path) -> None:
    root = public_data.llava_json(tmp_path / "mine", train=6, test=4)
    benchmark = made("llava_json", root)
    path = root / "wide.png"
    Image.new("RGB", (30000, 40)).save(path)
    row = benchmark.rows("colours", "test").to_pylist()[0]
    assert benchmark.open({**row, "images": [str(path)]}).images[0].size == (30000, 40)


def test_a_benchmark_yaml_names_files_scorers_and_suffixes(tmp_path: Path) -> None:
    root = public_data.llava_json(tmp_path / "mine")
    (root / "benchmark.yaml").write_text(
        "scorer: contains\n"
        "tasks:\n"
        "  mine: {train: colours/train.json, test: colours/test.json, suffix: ' In a word.', images: colours}\n"
        "  other: {train: letters/train.json, test: letters/test.json, scorer: letter}\n"
    )
    benchmark = made("llava_json", root)
    assert benchmark.tasks == ("mine", "other")
    assert (benchmark.rule("mine"), benchmark.rule("other")) == ("contains", "letter")
    assert all(text.endswith(" In a word.") for text in benchmark.rows("mine", "test")["instruction"].to_pylist())
    assert not any(text.endswith(" In a word.") for text in benchmark.rows("mine", "train")["instruction"].to_pylist())


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("tasks: {}", r"benchmark\.yaml, tasks: "),
        ("tasks: {a: {scorer: exact}}", r"tasks\.a\.train: no file is named, and there is no folder"),
        ("tasks: {colours: {answer_tokens: 0}}", r"tasks\.colours\.answer_tokens: "),
        ("tasks: {a: {train: x.json}}", r"benchmark\.yaml, tasks\.a\.train: there is no file"),
        ("tasks: {a: {train: x.json, test: x.json, scorr: y}}", r"tasks\.a\.scorr: Extra inputs"),
        ("tasks: {a: {train: x.json, test: x.json}}", r"tasks\.a\.train: there is no file"),
        ("tasks: {a: {train: colours/test.json, test: colours/test.json}}", "which it is also trained or chosen by"),
        ("scorer: exakt\ntasks: {a: {train: colours/train.json, test: colours/test.json}}", "did you mean 'exact'"),
    ],
)
def test_a_wrong_benchmark_yaml_is_told_with_its_key(text: str, why: str, tmp_path: Path) -> None:
    root = public_data.llava_json(tmp_path / "mine", train=6, test=4)
    (root / "benchmark.yaml").write_text(text)
    with pytest.raises((ValueError, FileNotFoundError), match=why):
        made("llava_json", root)


def test_what_cannot_be_found_is_told(tmp_path: Path, folders: dict[str, Path]) -> None:
    with pytest.raises(FileNotFoundError, match=r"benchmark\.root: there is no folder"):
        made("ucit", tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="has no folder of a task; looked for ImageNet-R"):
        made("ucit", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"has no benchmark\.yaml"):
        made("llava_json", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"benchmark\.images: there is no folder"):
        made("ucit", folders["ucit"], images=str(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match=r"benchmark\.aliases: no task 'CLEVR-Mat'.*did you mean 'CLEVR-Math'"):
        made("ucit", folders["ucit"], aliases={"CLEVR-Mat": "x"})


def test_aliases_and_images_name_what_lies_elsewhere(tmp_path: Path) -> None:
    root = public_data.mllm_dcl(tmp_path / "dcl")
    (root / "RS").rename(root / "RemoteSensing")
    assert "RS" not in made("mllm_dcl", root).tasks
    assert made("mllm_dcl", root, aliases={"RS": "RemoteSensing"}).rows("RS", "test").num_rows == 8
    pictures = tmp_path / "pictures"
    (root / "Med" / "images").rename(tmp_path / "images")
    pictures.mkdir()
    (tmp_path / "images").rename(pictures / "images")
    assert made("mllm_dcl", root, images=str(pictures)).rows("Med", "test").num_rows == 8


def test_several_files_that_may_be_the_training_file_are_told(tmp_path: Path) -> None:
    root = public_data.llava_json(tmp_path / "mine", train=6, test=4)
    text = (root / "colours" / "train.json").read_text()
    (root / "colours" / "train.json").unlink()
    for name in ("train_a.json", "train_b.json"):
        (root / "colours" / name).write_text(text)
    with pytest.raises(ValueError, match=r"several files like train\*\.json \(train_a\.json, train_b\.json\)"):
        made("llava_json", root)


def test_an_index_that_is_damaged_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    root = public_data.llava_json(tmp_path / "mine", train=6, test=4)
    first = table_digest(made("llava_json", root).rows("colours", "test"))
    (kept,) = (tmp_path / "cache" / "mcit" / "indexes").glob("*.arrow")
    kept.write_bytes(kept.read_bytes()[:100])
    assert table_digest(made("llava_json", root).rows("colours", "test")) == first


def test_a_task_without_files_is_the_folder_of_its_name(tmp_path: Path) -> None:
    root = public_data.llava_json(tmp_path / "mine", train=6, test=4)
    plain = made("llava_json", root).files["colours"]
    (root / "benchmark.yaml").write_text("tasks: {colours: {scorer: contains}}\n")
    told = made("llava_json", root).files["colours"]
    assert (told.train, told.test, told.validation) == (plain.train, plain.test, None)
    shutil.copy(root / "colours" / "test.json", root / "colours" / "validation.json")
    assert made("llava_json", root).files["colours"].validation == root / "colours" / "validation.json"


def test_how_answers_are_judged_is_in_every_evaluations_key(tmp_path: Path) -> None:
    """Rows stay as they are where a benchmark.yaml names another rule, or longer answers: their keys do not tell it."""
    root = public_data.llava_json(tmp_path / "mine", train=8, test=4)
    experiment = build_experiment(
        {"kind": "llava_json", "root": str(root)},
        "mini",
        "sequential",
        ("colours",),
        0,
        {"train.steps": 1, "train.batch_size": 4},
    )
    store = StageStore(tmp_path / "stages")
    seen: set[int] = set()
    keys: set[str] = set()
    stages: set[str] = set()
    for told in ("{scorer: exact}", "{scorer: contains}", "{scorer: exact, answer_tokens: 2}", "{scorer: exact}"):
        (root / "benchmark.yaml").write_text(f"tasks: {{colours: {told}}}\n")
        bench = Workbench(experiment.benchmark, "mini", "cpu")
        for result in Sequence(experiment, bench, store):
            assert result.stage in (UNTOUCHED, 0)
        seen.add(len(store.evaluations()))
        keys.add(trial_key(experiment, bench))
        stages |= {*store.entries()}
    assert len(seen) == 3  # the last one found everything
    assert len(keys) == 3
    assert len(stages) == 1  # and nothing was trained again
