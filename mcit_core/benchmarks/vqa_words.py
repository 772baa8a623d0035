"""The normalisation of answers that the official VQA evaluation compares.

Source: Antol et al., VQA, arXiv 1505.00468, and its evaluation's documentation: lower case, number words to digits,
articles dropped, apostrophes put back into contractions, punctuation replaced by a blank or (where it stands beside a
blank, or in a number with commas) dropped. Every answer is normalised; the first official script did so only where the
annotators differ.
"""

from __future__ import annotations

import re

_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
DIGITS = {"none": "0", **{word: str(i) for i, word in enumerate(_NUMBERS)}}
ARTICLES = {"a", "an", "the"}
_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
#: contractions with their apostrophes; each is known without one of them too, and without all. Those of "I" the
#: official script knows in upper case alone, which it never meets
_CONTRACTED = """
    ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd
    he'd've he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't must've
    needn't not've o'clock oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've
    somebody'll somebody's someone'd someone'd've someone'll someone's something'd something'd've something'll
    that's there'd there'd've there're there's they'd they'd've they'll they're they've 'twas wasn't we'd've
    we've weren't what'll what're what's what've when's where'd where's where've who'd who'd've who'll who's
    who've why'll why're why's won't would've wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've
    you'll you're you've
"""


def _without_apostrophes() -> dict[str, str]:
    known: dict[str, str] = {}
    for word in _CONTRACTED.split():
        places = [i for i, letter in enumerate(word) if letter == "'"]
        for dropped in [*([place] for place in places), places]:
            known.setdefault("".join(letter for i, letter in enumerate(word) if i not in dropped), word)
    return known


CONTRACTIONS = _without_apostrophes()


def normalised(answer: str) -> str:
    """An answer as it is compared."""
    given = text = " ".join(answer.split())
    numbered = re.search(r"\d,\d", given) is not None
    for mark in _PUNCTUATION:
        drop = numbered or f"{mark} " in given or f" {mark}" in given
        text = text.replace(mark, "" if drop else " ")
    text = re.sub(r"\.(?!\d)", "", text)  # the point of a number stays
    words = (DIGITS.get(word, word) for word in text.lower().split())
    return " ".join(CONTRACTIONS.get(word, word) for word in words if word not in ARTICLES)


def soft_accuracy(prediction: str, answers: list[str]) -> float:
    """In [0, 1]: the mean, over every choice of all annotators but one, of min(1, those that agree / 3). With one
    answer alone it is whether they agree."""
    said, told = normalised(prediction), [normalised(answer) for answer in answers]
    if len(told) == 1:
        return float(said == told[0])
    agree = [answer == said for answer in told]
    return sum(min(1.0, (sum(agree) - one) / 3) for one in agree) / len(told)
