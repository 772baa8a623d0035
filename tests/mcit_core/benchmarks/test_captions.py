"""Captions: what is asked of a file before it is scored, and pycocoevalcap's figures where it is installed."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcit_core.benchmarks import captions
from mcit_core.benchmarks.captions import SEVEN, has_java, main, mean_of_seven, rouge, seven_figures

#: pycocoevalcap leaves METEOR's pipes to the collector
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
SAID = ["a cat on a mat", "two dogs run"]
TOLD = [["A cat on a mat.", "the cat"], ["Two dogs run!", "a dog"]]
#: seven figures of 2,999 captions of VizWiz, and their mean, as a repository printed them
PRINTED = dict(zip(SEVEN, (0.7625, 0.5961, 0.4620, 0.3610, 0.2671, 0.5524, 1.3110), strict=True))


def test_the_mean_of_seven_is_a_printed_one() -> None:
    mean = mean_of_seven(PRINTED)
    assert mean is not None
    assert f"{100 * mean:.2f}" == "61.60"


def test_there_is_no_mean_of_six() -> None:
    assert mean_of_seven({name: 1.0 for name in SEVEN if name != "METEOR"}) is None


def test_a_caption_without_a_reference_is_refused() -> None:
    with pytest.raises(ValueError, match="every caption needs a reference"):
        seven_figures(SAID, [TOLD[0], []])
    with pytest.raises(ValueError, match="every caption needs a reference"):
        seven_figures([], [])


def test_without_the_package_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "pycocoevalcap.bleu.bleu", None)
    file = tmp_path / "ans_gt.json"
    file.write_text(json.dumps([{"pred": said, "ground_truth": told} for said, told in zip(SAID, TOLD, strict=True)]))
    assert main([str(file)]) == 2
    assert "pip install '.[captions]'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[", "Expecting value"),
        ("{}", "expected a JSON list"),
        ("[]", "expected a JSON list"),
        ("[1]", "row 0: expected pred"),
        ('[{"pred": "a", "ground_truth": ["b"]}, {"pred": "a"}]', "row 1: expected pred"),
        ('[{"pred": null, "ground_truth": ["b"]}]', "row 0: expected pred"),
        ('[{"pred": "a", "ground_truth": null}]', "row 0: expected pred"),
        ('[{"pred": "a", "ground_truth": [{"caption": "b"}]}]', "row 0: expected pred"),
    ],
)
def test_a_file_that_is_none_is_refused(
    text: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "ans_gt.json").write_text(text)
    assert main([str(tmp_path / "ans_gt.json")]) == 2
    told = capsys.readouterr().err
    assert str(tmp_path) in told
    assert said in told


def test_a_java_that_does_not_run_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "java").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "java").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    has_java.cache_clear()
    assert not has_java()
    monkeypatch.undo()
    has_java.cache_clear()


@pytest.mark.parametrize("java", [True, False])
def test_a_caption_with_line_ends_moves_no_other_one(java: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pycocoevalcap.bleu.bleu")
    if java and not has_java():
        pytest.skip("METEOR and the tokenizer are Java programs")
    if not java:
        monkeypatch.setattr(captions, "has_java", lambda: False)
    said = ["a cat on a mat", "two dogs run home", "a red bus"]
    plain = seven_figures(said, [[text] for text in said])
    for sign in ("\r", "\n", "\u2028", "\x0b", "\x85"):
        broken = [said[0].replace(" on", f"{sign} on"), *said[1:]]
        assert seven_figures(broken, [[text] for text in said]) == pytest.approx(plain)


def test_without_java_six_figures_have_names_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("pycocoevalcap.bleu.bleu")
    monkeypatch.setattr(captions, "has_java", lambda: False)
    found = seven_figures(SAID, TOLD)
    assert not {*found} & {*SEVEN}
    assert found["Bleu_1 (no Java)"] == pytest.approx(1)
    assert found["ROUGE_L (no Java)"] == pytest.approx(1)
    assert mean_of_seven(found) is None
    file = tmp_path / "ans_gt.json"
    rows = [{"pred": said, "ground_truth": told} for said, told in zip(SAID, TOLD, strict=True)]
    file.write_text(json.dumps([*rows, {"pred": "a", "ground_truth": []}]))
    assert main([str(file)]) == 0
    said = capsys.readouterr().out
    assert "2 captions, 1 without a reference left out" in said
    assert "– (there is no java)" in said


def test_with_java_there_are_seven() -> None:
    pytest.importorskip("pycocoevalcap.bleu.bleu")
    if not has_java():
        pytest.skip("METEOR and the tokenizer are Java programs")
    found = seven_figures(SAID, TOLD)
    assert [*found] == [*SEVEN]
    assert found["Bleu_4"] < 1  # "two dogs run" has no four words in a row
    assert found["METEOR"] == pytest.approx(1, abs=0.02)
    assert found["ROUGE_L"] == pytest.approx(1)


WORDS = st.lists(st.sampled_from(["a", "cat", "on", "the", "mat", "dog", "runs"]), min_size=1, max_size=9).map(" ".join)


@given(WORDS, st.lists(WORDS, min_size=1, max_size=5))
def test_rouge_is_pycocoevalcaps(said: str, told: list[str]) -> None:
    package = pytest.importorskip("pycocoevalcap.rouge.rouge")
    assert rouge(said, told)[0] == pytest.approx(package.Rouge().calc_score([said], told))
