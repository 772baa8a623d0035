"""Every rule on cases worked by hand: what it is for, where its published form differs, and odd input."""
# ruff: noqa: E501

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcit_core.benchmarks import scorers
from mcit_core.benchmarks.scorers import RULES, TASKS, explained, main, score
from mcit_core.benchmarks.vqa_words import normalised, soft_accuracy

Case = tuple[str, str | list[str], float]
CASES: dict[str, list[Case]] = {
    "exact": [
        ("cat", "cat", 1), ("Cat", "cat", 0), ("cat ", "cat", 0), ("cat.", "cat", 0), ("", "cat", 0), ("", "", 1),
        ("a cat", "cat", 0), ("cat", "a cat", 0), ("3", "3", 1), ("03", "3", 0), ("3.0", "3", 0), ("é", "é", 1),
        ("è", "é", 0), ("cat\n", "cat", 0), ("C", "C. text", 0), ("C. text", "C. text", 1), ("yes", "no", 0),
        ("1,877", "1,877", 1), ("1877", "1,877", 0), ("[1]", "[1]", 1),
    ],
    "exact_upper": [
        ("cat", "Cat", 1), ("CAT", "cat", 1), ("cat.", "cat", 0), ("cat ", "cat", 0), ("", "", 1), ("", "cat", 0),
        ("french bulldog", "French bulldog", 1), ("a", "A", 1), ("b", "A", 0), ("C", "C. A green plant", 0),
        ("c. a green plant", "C. A green plant", 1), ("dragonfly", '"dragonfly', 0), ('"Dragonfly', '"dragonfly', 1),
        ("3", "3", 1), ("three", "3", 0), ("1,877", "1877", 0), ("straße", "STRASSE", 1), ("ABC", "abc", 1),
        ("a b", "ab", 0), ("no", "yes", 0),
    ],
    "exact_lower": [
        ("Cat", "cat", 1), ("CAT", "Cat", 1), ("cat.", "cat", 0), ("", "cat", 0), ("Unanswerable", "unanswerable", 0),
        ("unanswerable", "Unanswerable", 1), ("it is Unanswerable", "x", 0), ("1999", "1999", 1), ("no", "yes", 0),
        ("yes", "yes", 1), ("Yes ", "yes", 0), ("jane austen", "Jane Austen", 1), ("austen", "Jane Austen", 0),
        ("", "", 1), ("É", "é", 1), ("a  b", "a b", 0), ("A B", "a b", 1), ("3", "3", 1), ("three", "3", 0),
        ("Comics & Graphic Novels", "comics & graphic novels", 1),
    ],
    "letter": [
        ("B", "B", 1), ("b", "B", 0), ("B. the cat", "B", 1), ("B.the cat", "B", 0), ("B) the cat", "B", 0),
        ("The answer is B.", "B", 1), ("Because of it. The answer is B.", "B", 1), ("The answer is B", "B", 0),
        ("The answer is B. The answer is C.", "B", 0), ("The answer is B. The answer is B.", "B", 0),
        ("the answer is B.", "B", 0), ("A cat", "A", 0), ("", "A", 0), ("F", "F", 0), ("The answer is F.", "F", 1),
        ("E", "E", 1), ("BB", "B", 0), ("B.", "B", 0), ("C. x. The answer is B.", "C", 1), ("It is B", "B", 0),
    ],
    "letter_coin": [
        ("B", "B", 1), ("b", "B", 1), ("B. the cat", "B", 1), ("B) the cat", "B", 1), ("The answer is B.", "B", 1),
        ("A cat is B", "A", 1), ("A cat is B", "B", 0), ("a cat, so B", "A", 1), ("I think B", "I", 1),
        ("I think B", "B", 0), ("the cat", "B", 0), ("", "B", 0), ("3 cats, B", "B", 0), ("B.", "B", 1),
        ("it's B", "S", 1), ("it's B", "B", 0), ("(C)", "C", 1), ("c.", "C", 1), ("answer: d", "D", 1),
        ("The answer is C because a cat", "C", 1),
    ],
    "contains": [
        ("it is normal", "no", 1), ("no", "no", 1), ("No", "no", 1), ("yes", "no", 0), ("", "no", 0), ("x", "", 1),
        ("the left lung", "Left Lung", 1), ("left  lung", "left lung", 0), ("Unanswerable", "unanswerable", 0),
        ("unanswerable", "unanswerable", 1), ("10", "0", 1), ("0", "10", 0), ("cell.", "cell", 1), ("cells", "cell", 1),
        ("cel", "cell", 0), ("in vivo", "in vivo", 1), ("IN VIVO", "in vivo", 1), ("é", "É", 1), ("a\nb", "b", 1),
        ("a,b", "a, b", 0),
    ],
    "contains_rs": [
        ("yes", "yes", 1), ("Yes.", "yes", 1), ("yes, it is", "yes", 1), ("it is yes", "yes", 1), ("eyes", "yes", 1),
        ("the eyes are", "yes", 1), ("no yes", "yes", 1), ("10", "0", 1), ("there are 10", "0", 0), ("10 of 0", "0", 1),
        ("a dense forest here", "dense forest", 1), ("denseforest", "dense forest", 0), ("", "yes", 0),
        ("Unanswerable", "unanswerable", 0), ("unanswerable", "unanswerable", 1), ("1.", "1.", 1), ("1", "1.", 1),
        ("it is 1", "1.", 1), ("Rural", "rural", 1), ("urban", "rural", 0), ("a rural,urban", "rural", 1),
    ],
    "either_contains": [
        ("tabby cat", "cat", 1), ("cat", "tabby cat", 1), ("", "cat", 1), ("a", "tabby cat", 1), ("Cat", "cat", 0),
        ("dog", "cat", 0), ("cat", "cat", 1), ("cats", "cat", 1), ("ca", "cat", 1), ("cta", "cat", 0), ("cat.", "cat", 1),
        ("x", "tabby cat", 0), (" ", "tabby cat", 1), (" ", "cat", 0), ("the cat", "tabby cat", 0), ("CAT", "CAT", 1),
        ("t", "cat", 1), ("tc", "cat", 0), ("cat, dog", "dog", 1), ("", "", 1),
    ],
    "fin": [
        ("Yes", "yes", 1), ("yes.", "Yes", 1), ("Yes, it is", "Yes", 0), ("A", "A", 1), ("A.", "A", 1), ("a", "A", 1),
        ("A B", "AB", 1), ("B", "A", 0), ("", "A", 0), ("Unanswerable", "unanswerable", 0), ("u n", "un", 1),
        ("no", "No.", 1), ("n.o.", "no", 1), ("(A)", "A", 0), ("A)", "A", 0), ("AB", "A", 0), ("1.5", "15", 1),
        ("1,5", "15", 0), (" ", "", 1), ("YES", "yes", 1),
    ],
    "vqa_soft": [
        ("2", ["2"] * 10, 1), ("two", ["2"] * 10, 1), ("2", ["two"] * 10, 1), ("3", ["2"] * 10, 0),
        ("2", ["2"] * 3 + ["3"] * 7, 0.9), ("2", ["2"] * 2 + ["3"] * 8, 0.6), ("2", ["2"] + ["3"] * 9, 0.3),
        ("2", ["2"] * 4 + ["3"] * 6, 1), ("a cat", ["cat"] * 10, 1), ("The Cat.", ["cat"] * 10, 1), ("cat", "cat", 1),
        ("dog", "cat", 0), ("dont", ["don't"] * 10, 1), ("yes!", ["yes"] * 10, 1), ("", ["yes"] * 10, 0),
        ("", [""] * 10, 1), ("1,000", ["1000"] * 10, 1), ("3.5", ["3.5"] * 10, 1), ("35", ["3.5"] * 10, 0),
        ("red/blue", ["red blue"] * 10, 1), ("none", ["0"] * 10, 1), ("t-shirt", ["t shirt"] * 10, 1),
    ],
    "gqa": [
        ("yes", "yes", 1), ("Yes.", "yes", 1), ("yes...", "yes", 1), ("Yes", "Yes", 0), (".yes", "yes", 0),
        ("yes ", "yes", 0), ("", "yes", 0), ("no", "yes", 0), ("a cat", "a cat", 1), ("A CAT.", "a cat", 1),
        ("a  cat", "a cat", 0), ("left", "left", 1), ("leftmost", "left", 0), ("3", "3", 1), ("3.", "3", 1),
        (".", "", 1), ("", "", 1), ("yes,", "yes", 0), ("é", "é", 1), ("ye.s", "yes", 0),
    ],
    "iou": [
        ("[0.1,0.1,0.5,0.5]", "[0.1,0.1,0.5,0.5]", 1), ("0.1,0.1,0.5,0.5", "[0.1,0.1,0.5,0.5]", 1),
        ("[0.1, 0.1, 0.5, 0.5]", "[0.1,0.1,0.5,0.5]", 1), ("[0,0,1,0.5]", "[0,0,1,1]", 0), ("[0,0,1,0.51]", "[0,0,1,1]", 1),
        ("[0.5,0.5,0.1,0.1]", "[0.1,0.1,0.5,0.5]", 0), ("[0.6,0.6,0.9,0.9]", "[0.1,0.1,0.5,0.5]", 0), ("", "[0,0,1,1]", 0),
        ("a box", "[0,0,1,1]", 0), ("[0,0,1]", "[0,0,1,1]", 0), ("[0,0,1,1,1]", "[0,0,1,1]", 0), ("[0,0,1,1", "[0,0,1,1]", 1),
        ("[1.00,0.0,1.0,1.0]", "[0,0,1,1]", 0), ("[0.12,0.1,0.5,0.78]", "[0.12,0.1,0.5,0.78]", 1),
        ("[nan,0,1,1]", "[0,0,1,1]", 0), ("[0,0,inf,1]", "[0,0,1,1]", 0), ("[0,0,0,0]", "[0,0,0,0]", 0),
        ("[[0,0,1,1]]", "[0,0,1,1]", 0), ("[-1,0,1,1]", "[0,0,1,1]", 0), ("[0,0,1,1]", "[0.0,0.0,0.8,0.8]", 1),
    ],
    "iou_coin": [
        ("[0.12,0.1,0.5,0.78]", "[0.12,0.1,0.5,0.78]", 1),  # .12 and .7
        ("[1.00,0.0,1.0,1.0]", "[0,0,1,1]", 1),  # the 1 of 1.00 goes
        ("[0.1,0.1,0.5,0.5]", "[0.1,0.1,0.5,0.5]", 0),  # 0.5 becomes 0.
        ("[0.10,0.10,0.50,0.50]", "[0.10,0.10,0.50,0.50]", 1), ("[0.5,0.5,0.1,0.15]", "[0.1,0.1,0.5,0.5]", 0),
        ("", "[0,0,1,1]", 0), ("[0,0,1]", "[0,0,1,1]", 0), ("a box", "[0,0,1,1]", 0), ("[", "[0,0,1,1]", 0),
        ("0.00,0.00,1.00,1.00", "[0,0,1,1]", 1), ("[0.00,0.00,1.00,0.49]", "[0,0,1,1]", 0),
        ("[0.00,0.00,1.00,0.59]", "[0,0,1,1]", 0),  # 0.5
        ("[0.00,0.00,1.00,0.69]", "[0,0,1,1]", 1), ("[[0.00,0.00,1.00,1.00]]", "[0,0,1,1]", 1),
        ("[0.67,0.59,1.0,0.97]", "[0.63,0.58,0.91,0.86]", 1), ("[0,0,1,1]", "[0,0,1,1]", 0),
        (" [0.00,0.00,1.00,1.00]", "[0,0,1,1]", 1), ("[0.00,0.00,1.00,1.00].", "[0,0,1,1]", 1),
        ("[1,0,1,1]", "[0,0,1,1]", 0), ("[0.20,0.20,0.80,0.80]", "[0,0,1,1]", 0),
    ],
    "ocr_list": [
        ("CENTRE", ["CENTRE"], 1), ("it says Centre", ["CENTRE"], 1), ("center", ["CENTRE"], 0), ("a", ["b", "a"], 1),
        ("ab", ["a"], 1), ("", ["a"], 0), ("a", [], 0), ("x", "x", 1), ("X", "x", 1), ("x y", "xy", 0), ("xy", "x y", 0),
        ("3", ["3", "three"], 1), ("three men", ["3", "three"], 1), ("4", ["3", "three"], 0), ("$5", ["5"], 1),
        ("5", ["$5"], 0), ("é", ["É"], 1), ("line\none", ["one"], 1), ("on e", ["one"], 0), ("A.B", ["a.b"], 1),
    ],
    "vp": [
        ("3", "3", 1), ("3.", "3", 1), ("There are 3", "3", 1), ("13", "3", 1), ("three", "3", 0), ("", "3", 0),
        ("A", "A", 1), ("a", "A", 0), ("(A) left", "(A)", 1), ("( A )", "(A)", 1), ("A. left", "A left", 1), ("B", "A", 0),
        ("left of", "leftof", 1), ("leftof", "left of", 1), ("3.5", "35", 1), ("x", "", 1), ("4", "3", 0), ("30", "3", 1),
        ("0", "00", 0), ("Yes", "yes", 0),
    ],
    # (1 + 1.44) p r / (r + 1.44 p) of the best precision p and the best recall r
    "rouge_l": [
        ("a b c", "a b c", 1), ("a b", "a b c", 2.44 * 2 / 3 / (2 / 3 + 1.44)), ("a b c", "a b", 2.44 * 2 / 3 / (1 + 0.96)),
        ("c b a", "a b c", 1 / 3), ("x", "a b c", 0), ("", "a b c", 0), ("a x b y c", "a b c", 2.44 * 0.6 / (1 + 1.44 * 0.6)),
        ("a", ["b", "a"], 1), ("a b", ["a c", "b d"], 0.5), ("a b c d", ["a b", "c d"], 2.44 * 0.5 / (1 + 0.72)), ("A", "a", 0),
        ("a.", "a", 0), ("the cat sat", "the cat sat on the mat", 2.44 * 0.5 / (0.5 + 1.44)),
        ("the the the", "the cat", 2.44 / 6 / (0.5 + 0.48)), ("a  b", "a b", 2.44 * 2 / 3 / (1 + 0.96)), ("a b a b", "b a b a", 0.75),
        ("a", ["a"] * 5, 1), ("dog", "cat", 0), ("a b c", "a x c", 2 / 3), ("sat the cat", "the cat sat", 2 / 3),
    ],
}  # fmt: skip
MATHVISTA: dict[str, list[tuple[str, str, float]]] = {
    "How many?": [
        ("3", "3", 1), ("The answer is 3.", "3", 1), ("The answer is 3", "4", 0), ("3 or 4", "3", 0), ("", "3", 0),
        ("three", "3", 0), ("1,000", "1000", 1), ("100 g", "1000", 0), ("3.0", "3", 1), ("3.7", "3", 0), ("-3", "3", 0),
        ("−3", "-3", 1), ("−3", "3", 0), ("1,2", "12", 0), ("1,,2", "12", 0), ("1.2.3", "1.2", 0), ("1.2", "1.2", 1),
        ("1.24", "1.2", 1), ("1.26", "1.2", 0), (".5", "0.5", 1), ("1.20 m", "1.2", 1), ("x3", "3", 0),
        ("9" * 400, "3", 0), ("9" * 400, "9" * 400, 1), ("9" * 400, "1.5", 0), ("yes", "yes", 1), ("Yes", "yes", 0),
        ("[1, 2]", "[1,2]", 1), ("[1, 2] or [3]", "[1,2]", 0), ("[2, 1]", "[1,2]", 0),
        ("[[1,2],[3]]", "[[1, 2], [3]]", 1), ("It is [1,2].", "[1,2]", 1), ("[1,2", "[1,2]", 0),
    ],
    "How large is it?\nChoices:\n(A) 135°\n(B) 140°\n(C) 145°": [
        ("B", "140°", 1), ("(B) 140°", "140°", 1), ("The answer is B", "140°", 1), ("140°", "140°", 1),
        ("140°.", "140°", 1), ("It is 140° in all", "140°", 1), ("B", "B", 1), ("A", "140°", 0), ("(A) 140°", "140°", 0),
        ("A or B", "140°", 0), ("(A) and (B)", "140°", 0), ("b", "140°", 0), ("E", "140°", 0), ("135° or 140°", "140°", 0),
        ("1400°", "140°", 0), ("", "140°", 0), ("Option B, since it is wide", "140°", 1), ("B. It is wide", "140°", 1),
        ("The answer is A, no, the answer is B", "140°", 0),
    ],
    "Which form?\r\nChoices:\r\n (A) circle\r\n (B) triangle\r\n (C) ": [
        ("A triangle", "triangle", 1), ("A man", "circle", 0), ("It is not A", "circle", 0), ("not triangle", "triangle", 0),
        ("B, as (A) is wrong", "circle", 0), ("It is a Triangle", "triangle", 1), ("the answer is a triangle", "triangle", 1),
        ("It isn't a circle", "circle", 0), ("", "", 0), ("C", "", 1), ("triangles", "triangle", 0),
    ],
    "How many?\nChoices:\n(A) 5\n(B) 7": [
        ("The answer is 2.5", "5", 0), ("-5", "5", 0), ("1,5", "5", 0), ("5", "5", 1), ("It is 5.", "5", 1), ("5.5", "5", 0),
    ],
    "Which letter?\nChoices:\n(A) B\n(B) A": [("A", "A", 0), ("B", "A", 1)],
}  # fmt: skip
WITH_ROW: list[tuple[str, str, str | list[str], dict[str, Any], float]] = [
    ("sci", "Mars", "mars", {"image": "images/TQA_12.png"}, 1),
    ("sci", "Mars.", "mars", {"image": "images/TQA_12.png"}, 0),
    ("sci", "it is Mars", "mars", {"image": "TQA_12.png"}, 0),
    ("sci", "it is Mars", "mars", {"image": "MapQA_1.png"}, 1),
    ("sci", "it is Mars", "mars", {}, 1),
    ("sci", "A", "a", {"image": "AI2D_3.png"}, 1),
    ("sci", "A", "b", {"image": "VQA_3.png"}, 0),
    ("sci", "A.", "a", {"image": "SciVerse_3.png"}, 0),
    ("sci", "Ohio, Utah", "Ohio,Utah", {"image": "MapQA_1.png", "question": "Which states have it?"}, 1),
    ("sci", "Ohio", "Ohio,Utah", {"image": "MapQA_1.png", "question": "Which states have it?"}, 0.5),
    ("sci", "Ohio,Utah", "Ohio, Utah", {"image": "MapQA_1.png", "text": "Which states have it?"}, 0.5),  # not stripped
    ("sci", "none", "Ohio,Utah", {"image": "MapQA_1.png", "question": "Which states have it?"}, 0),
    ("sci", "Ohio,Utah", "Ohio,Utah", {"image": "MapQA_1.png", "question": "which states have it?"}, 1),
    ("sci", "Utah,Ohio", "Ohio,Utah", {"image": "MapQA_1.png", "question": "which states have it?"}, 0),
    ("sci", "Unanswerable", "unanswerable", {"image": "TQA_1.png"}, 0),
    ("sci", "", "mars", {"image": "TQA_1.png"}, 0),
    ("sci", "", "mars", {"image": "MapQA_1.png"}, 0),
    ("sci", "MARS", "Mars", {"image": "deep/er/AI2D_1.png"}, 1),
    ("sci", "marsh", "mars", {"image": "MapQA_1.png"}, 1),
    ("sci", "marsh", "mars", {"image": "AI2D_1.png"}, 0),
    *(
        ("mathvista", said, gold, {"question": question}, points)
        for question, cases in MATHVISTA.items()
        for said, gold, points in cases
    ),
    ("ocr_list", "x ^ 2", ["x^2"], {"category": "Handwritten Mathematical Expression Recognition"}, 1),
    ("ocr_list", "x ^ 2", ["x^2"], {"category": "Text Recognition"}, 0),
    ("ocr_list", "x^2", ["x ^ 2"], {"answer_type": "HME100k"}, 1),
]


@pytest.mark.parametrize(
    ("rule", "prediction", "gold", "expected"), [(rule, *case) for rule, cases in CASES.items() for case in cases]
)
def test_worked_cases(rule: str, prediction: str, gold: str | list[str], expected: float) -> None:
    assert score(rule, prediction, gold) == pytest.approx(expected)


@pytest.mark.parametrize(("rule", "prediction", "gold", "row", "expected"), WITH_ROW)
def test_rules_that_look_at_the_row(
    rule: str, prediction: str, gold: str | list[str], row: dict[str, Any], expected: float
) -> None:
    assert score(rule, prediction, gold, row=row) == pytest.approx(expected)


def test_every_rule_has_twenty_cases() -> None:
    counts = {rule: len(cases) for rule, cases in CASES.items()}
    for rule, *_ in WITH_ROW:
        counts[rule] = counts.get(rule, 0) + 1
    assert counts.keys() == RULES.keys()
    assert min(counts.values()) >= 20, counts


@given(st.sampled_from(sorted({*RULES} - {"iou", "iou_coin"})), st.text(), st.text(min_size=1))
def test_whatever_is_said_a_score_is_between_0_and_1(rule: str, prediction: str, gold: str) -> None:
    assert 0 <= score(rule, prediction, gold, row={"question": "?"}) <= 1


@given(st.text("ABC()., 0123456789[]−-"), st.sampled_from(["A", "B", "5", "1.5", "[1]"]), st.sampled_from([*MATHVISTA]))
def test_whatever_is_said_mathvista_judges_it(prediction: str, gold: str, question: str) -> None:
    assert score("mathvista", prediction, gold, row={"question": question}) in (0, 1)


def test_mathvista_is_not_judged_without_its_question() -> None:
    for row in ({}, {"question": ""}, {"question": None, "text": " "}):
        with pytest.raises(ValueError, match="without its question"):
            score("mathvista", "B", "140°", row=row)
    assert score("mathvista", "3", "3", row={"question": "", "text": "How many?"}) == 1


@given(st.sampled_from(["iou", "iou_coin"]), st.text("[],.0123456789eE-na "))
def test_whatever_is_said_a_box_is_right_or_wrong(rule: str, prediction: str) -> None:
    assert score(rule, prediction, "[0.1,0.2,0.5,0.6]") in (0, 1)


@given(st.lists(st.sampled_from(["2", "two", "3", "a 3", "dog"]), min_size=2, max_size=10), st.sampled_from(["2", "3"]))
def test_soft_accuracy_is_the_mean_over_all_annotators_but_one(answers: list[str], said: str) -> None:
    told = [normalised(answer) for answer in answers]
    by_hand = [min(1, (told[:i] + told[i + 1 :]).count(said) / 3) for i in range(len(told))]
    assert soft_accuracy(said, answers) == pytest.approx(sum(by_hand) / len(by_hand))


def test_an_unknown_rule_and_a_gold_that_does_not_fit_are_told() -> None:
    with pytest.raises(KeyError, match=r"there is no rule 'leter'.*did you mean 'letter'"):
        score("leter", "a", "a")
    with pytest.raises(ValueError, match="compares with one answer, got 2"):
        score("exact", "a", ["a", "b"])
    with pytest.raises(ValueError, match="the gold is no box"):
        score("iou", "[0,0,1,1]", "left")


def test_the_tasks_name_known_rules() -> None:
    named = [one for tasks in TASKS.values() for one in tasks.values()]
    assert {rule for one in named for rule in (one.strict, one.published)} <= {*RULES}


def test_the_command_lists_and_explains(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list"]) == 0
    listed = capsys.readouterr().out
    assert all(rule.sentence in listed for rule in RULES.values())
    assert "coin ScienceQA (published)" in listed
    assert main(["--explain", "ScienceQA", "A cat is B", "B"]) == 0
    told = capsys.readouterr().out
    assert "strict (letter): 0: no letter: 0 times" in told
    assert "published (letter_coin): 0: 'A' is compared with 'B'" in told
    assert main(["--explain", "TextVQA", "two", '["2", "2", "3", "4"]']) == 0
    assert "'2' agrees with 2 of 4 annotators" in capsys.readouterr().out
    with pytest.raises(SystemExit) as stopped:
        main(["--explain", "ScienceQ", "a", "b"])
    assert stopped.value.code == 2
    assert "did you mean 'ScienceQA'" in capsys.readouterr().err


def test_a_task_of_two_benchmarks_is_explained_under_both(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(scorers.TASKS, "mine", {"GQA": scorers.Scoring("exact", "exact")})
    assert len(explained("GQA", "a", "a")) == 4
