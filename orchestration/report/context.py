"""What every part of the report needs: the results, the settings with their labels and colours, the chosen one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from pydantic import JsonValue

from orchestration.keep.tables import Row
from orchestration.report.charts import CROSSED, INK, SOFT, Series
from orchestration.results.choosing import Choice, choice
from orchestration.results.comparisons import Compared, compare
from orchestration.results.estimates import Estimate
from orchestration.results.reading import Results
from orchestration.results.settings import (
    VALIDATION,
    Setting,
    SettingSummary,
    applying_axes,
    best_setting,
    estimate_rows,
    is_number,
    setting_of,
    settings_summary,
    value_key,
)
from orchestration.results.words import format_value, setting_label

#: Okabe and Ito's colours, told apart by colour-blind readers; grey and the page's ink are kept for the references
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
SHAPES = ("circle", "square", "diamond", "triangle-up", "triangle-down", "cross")
#: viridis at nine places, without its brightest end
ORDERED = ("#7ad151", "#4ac16d", "#22a884", "#1f958b", "#2a788e", "#355f8d", "#414487", "#472d7b", "#440154")
REFERENCE_STYLE: dict[str, tuple[str, tuple[float, ...]]] = {
    "sequential": (INK, (5, 2)),
    "direct": ("#888888", (1, 2)),
    "multitask": (SOFT, (4, 2, 1, 2, 1, 2)),
    "zero_shot": ("#9a9a9a", (6, 3, 1, 3)),
    "majority": ("#a8a8a8", (1, 4)),
    "blind": ("#999999", (3, 3)),
}


@dataclass(frozen=True)
class Context:
    results: Results
    summaries: list[SettingSummary]
    chosen: Setting | None

    @classmethod
    def of(cls, results: Results) -> Context:
        summaries = settings_summary(results.trials, results.axes, results.design)
        best = best_setting(results.trials, results.axes, results.design)
        return cls(results, summaries, best.setting if best else None)

    @cached_property
    def styles(self) -> dict[Setting, Series]:
        return _styles(self.settings, self.label)

    @property
    def settings(self) -> list[Setting]:
        return [summary.setting for summary in self.summaries]

    @cached_property
    def ranked(self) -> list[SettingSummary]:
        """As they are shown in tables: the settings under study, the best on validation rows first, those that have no
        such figure by their test accuracy behind them; then the references."""

        def rank(summary: SettingSummary) -> tuple[bool, float]:
            validated, tested = (summary.metric(name).mean for name in (VALIDATION, "average_accuracy"))
            return validated is None, -(validated or tested or 0.0)

        studied = sorted((s for s in self.summaries if not s.setting.is_reference), key=rank)
        return studied + [summary for summary in self.summaries if summary.setting.is_reference]

    @property
    def studied(self) -> list[Setting]:
        """The settings under study, references aside."""
        return [setting for setting in self.settings if not setting.is_reference]

    @property
    def methods(self) -> list[str]:
        """The methods under study, references aside."""
        return list(dict.fromkeys(setting.method for setting in self.studied))

    @property
    def tasks(self) -> list[str]:
        first = next(iter(self.results.orders), None)
        return first.split(">") if first else []

    def label(self, setting: Setting) -> str:
        """Short name of a setting, no two alike: the method is named only where several are compared."""
        return self._labels[setting]

    @cached_property
    def _labels(self) -> dict[Setting, str]:
        several = len(self.methods) > 1
        short = {one: setting_label(one, self.results.axes, method=several) for one in self.settings}
        times = Counter(short.values())
        # numbers that agree in the digits that are shown
        whole = {one: f"{short[one]} ({', '.join(f'{name} {value!r}' for name, value in one.values)})" for one in short}
        return {one: label if times[label] == 1 else whole[one] for one, label in short.items()}

    def value_names(self, axis: str) -> list[str]:
        """The values of an axis in words, no two alike."""
        values = self.axis_values(axis)
        short = [format_value(value) for value in values]
        return short if len(set(short)) == len(short) else [repr(value) for value in values]

    @cached_property
    def _applying(self) -> dict[str, list[str]]:
        return applying_axes(self.results.trials, self.results.axes)

    def setting_of(self, row: Row) -> Setting:
        return setting_of(row, self._applying)

    def estimate(self, rows: Iterable[Row], metric: str) -> Estimate:
        """Over the seeds and orders of some trials."""
        return estimate_rows(rows, metric, self.results.design)

    @cached_property
    def compared(self) -> Compared:
        return compare(self.results.trials, self.results.axes, self.results.design)

    @cached_property
    def choice(self) -> Choice | None:
        """What the choice of a setting is worth; None where there was none to make."""
        return choice(self.results.trials, self.results.axes, self.results.design)

    def rows(self, setting: Setting, order: str | None = None) -> list[Row]:
        """The finished trials of a setting, of one order if given."""
        return [row for row in self._rows.get(setting, []) if order in (None, row["order"])]

    @cached_property
    def _rows(self) -> dict[Setting, list[Row]]:
        found: dict[Setting, list[Row]] = {}
        for row in self.results.finished:
            found.setdefault(self.setting_of(row), []).append(row)
        return found

    def axis_values(self, axis: str) -> list[JsonValue]:
        """The values of an axis among trials that are not references: numbers by size, others as declared."""
        found = list(dict.fromkeys(row.get(axis) for row in self._studied_rows()))
        if all(is_number(value) for value in found):
            return sorted(found, key=value_key)
        declared = self.results.axes.get(axis) or []
        return sorted(
            found,
            key=lambda value: (declared.index(value), ()) if value in declared else (len(declared), value_key(value)),
        )

    def numeric_axes(self) -> list[str]:
        return [axis for axis in self.results.axes if axis != "order" and self._is_numeric(axis)]

    def categorical_axes(self) -> list[str]:
        return [axis for axis in self.results.axes if axis != "order" and not self._is_numeric(axis)]

    def _is_numeric(self, axis: str) -> bool:
        values = self.axis_values(axis)
        return bool(values) and all(is_number(value) for value in values)

    def _studied_rows(self) -> list[Row]:
        references = {setting.method for setting in self.settings if setting.is_reference}
        return [row for row in self.results.trials if row["method"] not in references]

    def pick(
        self, count: int, references: Sequence[str] = ("sequential",), among: Collection[Setting] | None = None
    ) -> list[Setting]:
        """At most `count` settings with a finished trial: the named references, and the best ones (see `ranked`);
        among: those that there are to pick from, None for all."""
        done = [one.setting for one in self.ranked if one.finished and (among is None or one.setting in among)]
        first = [setting for setting in done if setting.method in references][: max(1, count // 3)]
        studied = [setting for setting in done if not setting.is_reference][: count - len(first)]
        if self.chosen is not None and self.chosen in done and self.chosen not in studied:
            studied[-1:] = [self.chosen]
        return [setting for setting in self.settings if setting in studied or setting in first]

    def picked(self, count: int, there: Collection[str]) -> frozenset[str]:
        """The labels of at most `count` settings (see `pick`), among those of the labels that are there."""
        among = [setting for setting in self.settings if self.label(setting) in there]
        return frozenset(map(self.label, self.pick(count, among=among)))


def _styles(settings: list[Setting], label: Callable[[Setting], str]) -> dict[Setting, Series]:
    """Colours with shapes, each pair once; neighbouring settings get neighbouring colours where one number tells them
    apart, and where there are more than pairs."""
    studied = [setting for setting in settings if not setting.is_reference]
    pairs = len(PALETTE) * len(SHAPES)
    ordered = len(studied) > pairs or (len(studied) > 1 and _vary_in_one_number(studied))
    styles = {}
    for i, setting in enumerate(studied):
        shade = _between(ORDERED, i / max(1, len(studied) - 1)) if ordered else PALETTE[i % len(PALETTE)]
        # another shape with every colour, and others again when the colours are through
        styles[setting] = Series(label(setting), shade, SHAPES[(i + i // len(PALETTE)) % len(SHAPES)])
    for setting in settings:
        if setting.is_reference:
            colour, dash = REFERENCE_STYLE[setting.method]
            styles[setting] = Series(label(setting), colour, CROSSED, dash)
    return styles


def _vary_in_one_number(settings: list[Setting]) -> bool:
    one_axis = {len(setting.values) for setting in settings} == {1}
    return one_axis and all(is_number(value) for setting in settings for _, value in setting.values)


def _between(colours: Sequence[str], share: float) -> str:
    """The colour at a share of the way through some."""
    place = share * (len(colours) - 1)
    low = min(int(place), len(colours) - 2)
    parts = [[int(colour[start : start + 2], 16) for start in (1, 3, 5)] for colour in (colours[low], colours[low + 1])]
    mixed = (round(a + (b - a) * (place - low)) for a, b in zip(*parts, strict=True))
    return "#" + "".join(f"{part:02x}" for part in mixed)
