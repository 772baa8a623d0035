"""Scores of captions: ROUGE-L row by row, and the seven figures of a whole file whose mean the papers of UCIT print.

`python -m mcit_core.benchmarks.captions ANS_GT.json` prints them for a file of [{"pred", "ground_truth"}, ..]. They are
pycocoevalcap's (`pip install '.[captions]'`); its tokenizer and METEOR are Java programs. Without Java the words are
told apart by a regular expression, there is no METEOR, and what is left has names of its own: it is not what papers
print, and has no mean.

Source: Chen et al., Microsoft COCO Captions, arXiv 1504.00325, section 4; the mean of seven: HiDe-LLaVA, arXiv
2503.12941, whose code leaves SPICE out.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path

#: the figures that are averaged, as pycocoevalcap names them
SEVEN = ("Bleu_1", "Bleu_2", "Bleu_3", "Bleu_4", "METEOR", "ROUGE_L", "CIDEr")
INSTALL = "captions are scored by pycocoevalcap: `pip install '.[captions]'`"
#: added to a figure's name where words were told apart without Java
OTHER_WORDS = " (no Java)"


def rouge(prediction: str, golds: Sequence[str]) -> tuple[float, float, float]:
    """ROUGE-L, precision and recall; Lin 2004 as pycocoevalcap has it: of the longest common subsequence of words the
    best precision and the best recall over the references, put together with beta 1.2."""
    said = prediction.split(" ")
    shares = []
    for one in golds:
        told = one.split(" ")
        common = _common(said, told)
        shares.append((common / len(said), common / len(told)))
    precision, recall = (max(share[i] for share in shares) for i in (0, 1))
    points = 0.0
    if precision and recall:
        points = (1 + 1.2**2) * precision * recall / (recall + 1.2**2 * precision)
    return points, precision, recall


def _common(one: list[str], other: list[str]) -> int:
    """Length of the longest common subsequence."""
    lengths = [0] * (len(other) + 1)
    for word in one:
        before = 0
        for j, another in enumerate(other, 1):
            before, lengths[j] = lengths[j], before + 1 if word == another else max(lengths[j], lengths[j - 1])
    return lengths[-1]


@cache
def has_java() -> bool:
    """Whether there is a Java that runs."""
    try:
        return subprocess.run(["java", "-version"], capture_output=True, timeout=60, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def seven_figures(predictions: Sequence[str], golds: Sequence[Sequence[str]]) -> dict[str, float]:
    """Figure -> its value over a whole file, in [0, 1] but for CIDEr, whose most is 10: the seven of SEVEN, or without
    Java six of other names. Every caption needs a gold. Seconds for thousands of captions. Raises ModuleNotFoundError
    without pycocoevalcap, and ValueError where a caption has no gold."""
    if not predictions or not all(golds):
        raise ValueError("every caption needs a reference")
    try:
        from pycocoevalcap.bleu.bleu import Bleu
        from pycocoevalcap.cider.cider import Cider
        from pycocoevalcap.meteor.meteor import Meteor
        from pycocoevalcap.rouge.rouge import Rouge
        from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer
    except ImportError as error:
        raise ModuleNotFoundError(INSTALL) from error
    java = has_java()

    def words(texts: Sequence[Sequence[str]]) -> dict[int, list[str]]:
        # a caption a line for Java: whatever breaks one would shift all that follow
        lines = [[" ".join(text.split()) for text in row] for row in texts]
        if not java:
            return {i: [*map(_words, row)] for i, row in enumerate(lines)}
        found: dict[int, list[str]] = PTBTokenizer().tokenize(
            {i: [{"caption": text} for text in row] for i, row in enumerate(lines)}
        )
        return found

    said, told = words([[text] for text in predictions]), words(golds)
    found = dict(zip(SEVEN[:4], map(float, Bleu(4).compute_score(told, said, verbose=0)[0]), strict=True))
    scorers = {"METEOR": Meteor, "ROUGE_L": Rouge, "CIDEr": Cider} if java else {"ROUGE_L": Rouge, "CIDEr": Cider}
    found |= {name: float(scorer().compute_score(told, said)[0]) for name, scorer in scorers.items()}
    return found if java else {f"{name}{OTHER_WORDS}": value for name, value in found.items()}


def _words(text: str) -> str:
    """Lower case, without the marks that the Penn Treebank's tokenizer drops for captions."""
    return " ".join(re.findall(r"[\w'-]*\w", text.lower()))


def read_captions(file: Path) -> list[tuple[str, list[str]]]:
    """What was said and the references, row by row. Raises ValueError that names the row for anything else."""
    rows = json.loads(file.read_text(encoding="utf-8-sig"))
    if not isinstance(rows, list) or not rows:
        raise ValueError('expected a JSON list of {"pred": .., "ground_truth": [..]}')
    found: list[tuple[str, list[str]]] = []
    for number, row in enumerate(rows):
        said, told = (row.get(key) for key in ("pred", "ground_truth")) if isinstance(row, dict) else (None, None)
        golds = told if isinstance(told, list) else [told]
        texts = [gold for gold in golds if isinstance(gold, str)]
        if not isinstance(said, str) or len(texts) < len(golds):
            raise ValueError(f"row {number}: expected pred, a text, and ground_truth, a text or a list of texts")
        found.append((said, texts))
    return found


def mean_of_seven(figures: dict[str, float]) -> float | None:
    """The score that papers print, in [0, 1] where CIDEr is, or None where one of the seven is missing."""
    if not {*SEVEN} <= {*figures}:
        return None
    return sum(figures[name] for name in SEVEN) / len(SEVEN)


def main(arguments: list[str] | None = None) -> int:
    """Exit codes: 0 printed, 2 a file that cannot be read, or no pycocoevalcap."""
    parser = argparse.ArgumentParser(
        prog="python -m mcit_core.benchmarks.captions", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("file", type=Path, help='JSON: [{"pred": "a cat", "ground_truth": ["the cat", "a cat"]}, ..]')
    given = parser.parse_args(arguments)
    try:
        pairs = read_captions(given.file)
        known = [(said, golds) for said, golds in pairs if golds]
        figures = seven_figures([said for said, _ in known], [golds for _, golds in known])
    except (OSError, ValueError, ModuleNotFoundError) as error:
        print(f"{given.file}: {error}", file=sys.stderr)
        return 2
    left = len(pairs) - len(known)
    print(f"{len(known)} captions" + (f", {left} without a reference left out" if left else ""))
    for name, value in figures.items():
        print(f"{name:<22} {100 * value:.2f}")
    mean = mean_of_seven(figures)
    print(f"{'mean of seven':<22} " + ("– (there is no java)" if mean is None else f"{100 * mean:.2f}"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
