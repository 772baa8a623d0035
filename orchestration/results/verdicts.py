"""Differences in words: how large, how sure, and what would tell more."""

from __future__ import annotations

from mcit_core.metrics import CATALOGUE
from orchestration.results.estimates import CONFIDENCE, LEAST, Estimate, more_seeds
from orchestration.results.words import format_number, units

#: verdicts that tell a difference from none
TOLD = ("better", "worse")
#: where it does not
UNCLEAR = "no clear difference"


def plural(count: int, word: str) -> str:
    return f"{count} {word}{'' if count == 1 else 's'}"


def listing(words: list[str]) -> str:
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " and " + words[-1] if words else ""


def in_words(metric: str, difference: Estimate) -> str:
    """A paired difference as a clause: points, interval, units."""
    if difference.mean is None:
        return "no pair of finished trials"
    text = f"{format_number(metric, difference.mean, signed=True)} points"
    if difference.interval is None:
        return f"{text} ({units(difference)}, too few for an interval)"
    low, high = (format_number(metric, end, signed=True) for end in difference.interval)
    return f"{text} (95 % interval {low} to {high}, {units(difference)})"


def verdict(metric: str, difference: Estimate, p_holm: float | None) -> str:
    """better, worse, or no clear difference: decided by the p-value corrected over all that the report compares."""
    if difference.mean is None:
        return ""
    if difference.interval is None:
        return "too few orders to tell" if 0 < difference.drawn < LEAST <= difference.n else "too few seeds to tell"
    if not difference.half_width and difference.mean:
        return "the same with every seed"
    if p_holm is None or p_holm > 1 - CONFIDENCE:
        return UNCLEAR
    return "better" if (difference.mean > 0) == (CATALOGUE[metric].better == "higher") else "worse"


def what_would_tell(difference: Estimate) -> str:
    """How many seeds more would tell a difference of this size from none, taken by itself; empty where the seeds'
    spread is not all that is open."""
    if difference.mean is None or not difference.mean or difference.drawn:
        return ""
    if difference.spread is None:
        return "two more seeds would give an interval"
    if difference.leaves_zero_out:
        return "this is told from zero by itself, but not among all that is compared"
    more = max(1, more_seeds(abs(difference.mean), difference.spread, difference.n))
    points = 100 * abs(difference.mean)
    return (
        f"{plural(more, 'more seed')} would tell {points:.1f} points apart, if they spread as these do and nothing "
        "else were compared"
    )
