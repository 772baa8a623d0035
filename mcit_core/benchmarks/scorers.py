"""When an answer is right: the rules of public benchmarks, as their data sets mean them and as they are computed.

`python -m mcit_core.benchmarks.scorers --list` says each in a sentence; `--explain TASK PREDICTION GOLD` gives every
convention's verdict on one answer of a public benchmark's task, and why.

Source: the evaluation scripts of CoIN (Chen et al., arXiv 2403.08350), UCIT (Guo et al., HiDe-LLaVA, arXiv 2503.12941),
MLLM-CL (Zhao et al., arXiv 2506.05453) and LLaVA (arXiv 2310.03744), whose rules are reproduced here, not their code.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from mcit_core.benchmarks.captions import rouge
from mcit_core.benchmarks.mathvista import plain_answer
from mcit_core.benchmarks.vqa_words import normalised, soft_accuracy
from mcit_core.registry import near

#: one right answer, or several
Gold = str | list[str]
#: a test row, for the rules that look at its image's name, its question or its category
Told = Mapping[str, object]
#: a verdict in [0, 1] and how it came about
Verdict = tuple[float, str]
LETTERS = "ABCDE"


def _golds(gold: Gold) -> list[str]:
    return [str(one) for one in gold] if isinstance(gold, list) else [str(gold)]


def _one(gold: Gold) -> str:
    golds = _golds(gold)
    if len(golds) != 1:
        raise ValueError(f"this rule compares with one answer, got {len(golds)}")
    return golds[0]


def _same(said: str, told: str) -> Verdict:
    return float(said == told), f"{said!r} is compared with {told!r}"


def _in(told: str, said: str) -> Verdict:
    return float(told in said), f"{told!r} is looked for in {said!r}"


def exact(prediction: str, gold: Gold, row: Told) -> Verdict:
    return _same(prediction, _one(gold))


def exact_upper(prediction: str, gold: Gold, row: Told) -> Verdict:
    return _same(prediction.upper(), _one(gold).upper())


def exact_lower(prediction: str, gold: Gold, row: Told) -> Verdict:
    return _same(prediction.lower(), _one(gold).lower())


def _prefixed(text: str, letters: str) -> str | None:
    """A letter alone, or before a point and a blank."""
    if len(text) == 1 and text in letters:
        return text
    return text[0] if len(text) >= 3 and text[0] in letters and text[1:3] == ". " else None


def letter(prediction: str, gold: Gold, row: Told) -> Verdict:
    found = _prefixed(prediction, LETTERS)
    if found is None:
        told = re.findall(r"The answer is ([A-Z])\.", prediction)
        if len(told) != 1:
            return 0.0, f"no letter: {len(told)} times 'The answer is X.'"
        found = told[0]
    return _same(found, _one(gold))


def letter_coin(prediction: str, gold: Gold, row: Told) -> Verdict:
    found = _prefixed(prediction, LETTERS)
    if found is None:
        word = re.search(r"\b\w\b", prediction)
        if word is None:
            return 0.0, "no letter: no word of one character"
        found = word[0].upper()
    return _same(found, _one(gold))


def contains_rs(prediction: str, gold: Gold, row: Told) -> Verdict:
    said, told = prediction.lower(), _one(gold).lower()
    if " " in told:
        return _in(told, said)
    told = told.replace(".", "")
    if " " not in said:
        return _in(told, said)
    forms = (f" {told}", f"{told} ", f"{told}.", f"{told},")
    return float(any(form in said for form in forms)), f"{told!r} beside a blank, a point or a comma in {said!r}"


def contains(prediction: str, gold: Gold, row: Told) -> Verdict:
    return _in(_one(gold).lower(), prediction.lower())


def either_contains(prediction: str, gold: Gold, row: Told) -> Verdict:
    told = _one(gold)
    return float(told in prediction or prediction in told), f"{told!r} in {prediction!r} or the other way round"


def sci(prediction: str, gold: Gold, row: Told) -> Verdict:
    said, told = prediction.lower(), _one(gold).lower()
    source = str(row.get("image", "")).rpartition("/")[2].partition("_")[0]
    if source in ("AI2D", "TQA", "VQA", "SciVerse"):
        return _same(said, told)
    if "Which states" in str(row.get("question", row.get("text", ""))):
        parts = told.split(",")
        return sum(part in said for part in parts) / len(parts), f"which of {parts} are in {said!r}"
    return _in(told, said)


def fin(prediction: str, gold: Gold, row: Told) -> Verdict:
    said, told = (text.lower().replace(" ", "").replace(".", "") for text in (prediction, _one(gold)))
    return _same(said, told)


def vqa_soft(prediction: str, gold: Gold, row: Told) -> Verdict:
    golds = _golds(gold)
    agree = sum(normalised(one) == normalised(prediction) for one in golds)
    return soft_accuracy(
        prediction, golds
    ), f"{normalised(prediction)!r} agrees with {agree} of {len(golds)} annotators"


def gqa(prediction: str, gold: Gold, row: Told) -> Verdict:
    return _same(prediction.rstrip(".").lower(), _one(gold))


Box = tuple[float, float, float, float]


def _box(text: str) -> Box | None:
    """Four numbers with commas between them, in brackets or not; None for anything else."""
    parts = text.strip().removeprefix("[").removesuffix("]").split(",")
    try:
        left, top, right, bottom = (float(part) for part in parts)
    except ValueError:
        return None
    return left, top, right, bottom


def _overlap(said: Box | None, told: Box | None) -> Verdict:
    if told is None:
        raise ValueError("the gold is no box of four numbers")
    if said is None:
        return 0.0, "no box of four numbers"
    if said[2] < said[0] or said[3] < said[1]:
        return 0.0, "an inverted box"
    width, height = (min(said[i + 2], told[i + 2]) - max(said[i], told[i]) for i in (0, 1))
    common = max(width, 0.0) * max(height, 0.0)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (said, told)]
    whole = sum(areas) - common
    share = common / whole if whole > 0 else 0.0
    return float(share > 0.5), f"IoU {share:.3f}, of {list(said)} with {list(told)}"


def iou(prediction: str, gold: Gold, row: Told) -> Verdict:
    return _overlap(_box(prediction), _box(_one(gold)))


def iou_coin(prediction: str, gold: Gold, row: Told) -> Verdict:
    lossy = prediction.replace("[", "").replace("]", "")[1:-1]
    return _overlap(_box(lossy), _box(_one(gold)))


def ocr_list(prediction: str, gold: Gold, row: Told) -> Verdict:
    said, golds = prediction.lower(), [one.lower() for one in _golds(gold)]
    kind = str(row.get("category", row.get("answer_type", row.get("type", ""))))
    if kind in ("HME", "HME100k", "Handwritten Mathematical Expression Recognition"):
        said, golds = said.replace(" ", ""), [one.replace(" ", "") for one in golds]
    return float(any(one in said for one in golds)), f"any of {golds} is looked for in {said!r}"


def vp(prediction: str, gold: Gold, row: Told) -> Verdict:
    said, told = (text.replace(" ", "").replace(".", "") for text in (prediction, _one(gold)))
    return _in(told, said)


def rouge_l(prediction: str, gold: Gold, row: Told) -> Verdict:
    points, precision, recall = rouge(prediction, _golds(gold))
    return points, f"words in common in their order: precision {precision:.3f}, recall {recall:.3f}"


def mathvista(prediction: str, gold: Gold, row: Told) -> Verdict:
    question = next((str(row[key]) for key in ("question", "text", "prompt") if row.get(key)), "")
    return plain_answer(prediction, _one(gold), question)


@dataclass(frozen=True)
class Rule:
    """`several`: whether it takes several golds together; by another an answer is right where it is by one of them.
    `abstaining_wrong`: whether an answer with 'Unanswerable' in it is wrong, whatever the gold."""

    verdict: Callable[[str, Gold, Told], Verdict]
    sentence: str
    several: bool = False
    abstaining_wrong: bool = False


RULES: dict[str, Rule] = {
    "exact": Rule(exact, "the answer is the gold, character by character"),
    "exact_upper": Rule(exact_upper, "the answer is the gold, both in upper case"),
    "exact_lower": Rule(
        exact_lower, "the answer is the gold, both in lower case; 'Unanswerable' in it is wrong", abstaining_wrong=True
    ),
    "letter": Rule(letter, "one letter A to E, or a letter before '. ', or exactly one 'The answer is X.'"),
    "letter_coin": Rule(
        letter_coin, "one letter A to E, or a letter before '. ', or the first word of one character ('a' is A)"
    ),
    "contains": Rule(
        contains,
        "the gold stands in the answer, both in lower case; 'Unanswerable' in it is wrong",
        abstaining_wrong=True,
    ),
    "contains_rs": Rule(
        contains_rs,
        "the gold stands in the answer in lower case, a gold of one word in an answer of several beside a blank, a "
        "point or a comma; 'Unanswerable' in it is wrong",
        abstaining_wrong=True,
    ),
    "either_contains": Rule(
        either_contains, "the gold stands in the answer or the answer in the gold: an empty one too"
    ),
    "sci": Rule(
        sci,
        "by the image file's first letters: exact in lower case (AI2D, TQA, VQA, SciVerse), the share of the gold's "
        "parts (a question with 'Which states'), else the gold stands in the answer; 'Unanswerable' in it is wrong",
        abstaining_wrong=True,
    ),
    "fin": Rule(
        fin,
        "the answer is the gold in lower case without blanks and points; 'Unanswerable' in it is wrong",
        abstaining_wrong=True,
    ),
    "vqa_soft": Rule(
        vqa_soft,
        "the official VQA normalisation, then the mean over all annotators but one of min(1, agreeing / 3)",
        several=True,
    ),
    "gqa": Rule(gqa, "the answer in lower case without points at its end is the gold as it is"),
    "iou": Rule(iou, "four numbers; intersection over union above 0.5; an inverted box is wrong"),
    "iou_coin": Rule(iou_coin, "as iou, after the brackets and then the first and the last character are taken off"),
    "ocr_list": Rule(
        ocr_list,
        "any of the golds stands in the answer, in lower case; of handwritten formulas without blanks",
        several=True,
    ),
    "vp": Rule(vp, "the gold stands in the answer, both without blanks and points"),
    "mathvista": Rule(
        mathvista,
        "the one letter or option, number or list that the answer gives is the gold, a number rounded to the digits "
        "behind the gold's point; where it gives none or several it is wrong, since no model is asked what was meant",
    ),
    "rouge_l": Rule(
        rouge_l,
        "ROUGE-L of a caption against its references, as pycocoevalcap has it, without its tokenizer",
        several=True,
    ),
}


@dataclass(frozen=True)
class Scoring:
    """A task's rules: `strict`, that of the data set, and `published`, what the benchmark's repository computes."""

    strict: str
    published: str


#: benchmark -> task -> its rules; captions, which are scored a file at a time, are in no table
TASKS: dict[str, dict[str, Scoring]] = {
    "coin": {
        "ScienceQA": Scoring("letter", "letter_coin"),
        "TextVQA": Scoring("vqa_soft", "vqa_soft"),
        "ImageNet": Scoring("exact", "either_contains"),
        "GQA": Scoring("gqa", "gqa"),
        "VizWiz": Scoring("vqa_soft", "exact_upper"),
        "Grounding": Scoring("iou", "iou_coin"),
        "VQAv2": Scoring("vqa_soft", "exact_upper"),
        "OCRVQA": Scoring("exact_lower", "exact_lower"),
    },
    "ucit": {name: Scoring("exact", "exact_upper") for name in ("ImageNet-R", "ArxivQA", "IconQA", "CLEVR-Math")},
    "mllm_dcl": {
        "RS": Scoring("exact", "contains_rs"),
        "Med": Scoring("exact", "contains"),
        "AD": Scoring("exact", "contains_rs"),
        "Sci": Scoring("exact", "sci"),
        "Fin": Scoring("exact", "fin"),
    },
    "mllm_acl": {
        "OCR": Scoring("ocr_list", "ocr_list"),
        "Math": Scoring("mathvista", "mathvista"),
        "VP": Scoring("exact", "vp"),
    },
}


def verdict(rule: str, prediction: str, gold: Gold, row: Told | None = None) -> Verdict:
    """A score in [0, 1] and how it came about. Raises KeyError for an unknown rule and ValueError for a gold that it
    cannot be compared with."""
    if rule not in RULES:
        raise KeyError(f"there is no rule {rule!r}; there are {', '.join(RULES)}{near(rule, RULES)}")
    if RULES[rule].abstaining_wrong and "Unanswerable" in prediction:
        return 0.0, "an answer with 'Unanswerable' is wrong"
    return RULES[rule].verdict(prediction, gold, row or {})


def score(rule: str, prediction: str, gold: Gold, *, row: dict[str, object] | None = None) -> float:
    """In [0, 1]. `gold`: the right answer, or a list where there are several; `row`: the test row, for the rules that
    look at its image's name, its question or its category. Raises as `verdict`."""
    return verdict(rule, prediction, gold, row)[0]


def best_score(rule: str, prediction: str, golds: list[str], row: dict[str, object]) -> float:
    """By a rule that compares with one answer, the best over all that count as right. Raises ValueError where it cannot
    be compared with one of them."""
    if RULES[rule].several:
        return score(rule, prediction, golds, row=row)
    return max(score(rule, prediction, gold, row=row) for gold in golds)


def content_score(scoring: Scoring, prediction: str, golds: list[str], row: dict[str, object]) -> float:
    """1.0 where the content is right, whatever the form: by either of the task's rules, or after the normalisation of
    the VQA evaluation, of a letter also where it is the first word of one character."""
    best = max(best_score(rule, prediction.strip(), golds, row) for rule in (scoring.strict, scoring.published))
    said = normalised(prediction)
    same = bool(said) and said in map(normalised, golds)
    letters = [gold.removesuffix(".") for gold in golds if len(gold.removesuffix(".")) == 1]
    lettered = any(score("letter_coin", prediction, letter.upper()) for letter in letters)
    return max(best, float(same or lettered))


def explained(task: str, prediction: str, gold: Gold) -> list[str]:
    """Every convention's verdict on an answer of a public benchmark's task. Raises KeyError for an unknown task."""
    found = [(kind, tasks[task]) for kind, tasks in TASKS.items() if task in tasks]
    if not found:
        names = [name for tasks in TASKS.values() for name in tasks]
        raise KeyError(f"there is no task {task!r}; there are {', '.join(names)}{near(task, names)}")
    lines = []
    for kind, scoring in found:
        for convention in ("strict", "published"):
            rule = getattr(scoring, convention)
            points, why = verdict(rule, prediction, gold)
            lines.append(f"{kind} {task}, {convention} ({rule}): {points:g}: {why}")
    return lines


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m mcit_core.benchmarks.scorers", description=(__doc__ or "").split("\n")[0]
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--list", action="store_true", help="the rule of each in a sentence")
    what.add_argument(
        "--explain", nargs=3, metavar=("TASK", "PREDICTION", "GOLD"), help="GOLD: an answer, or a JSON list of several"
    )
    given = parser.parse_args(arguments)
    if given.list:
        wide = max(map(len, RULES))
        for name, rule in RULES.items():
            used = [
                f"{kind} {task} ({convention})"
                for kind, tasks in TASKS.items()
                for task, scoring in tasks.items()
                for convention in ("strict", "published")
                if getattr(scoring, convention) == name
            ]
            print(f"{name:<{wide}}  {rule.sentence}" + (f"\n{'':<{wide}}  {', '.join(used)}" if used else ""))
        return 0
    task, prediction, told = given.explain
    gold: Gold = json.loads(told) if told.startswith('["') else told
    try:
        print("\n".join(explained(task, prediction, gold)))
    except (KeyError, ValueError) as error:
        parser.error(f"--explain: {error.args[0]}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
