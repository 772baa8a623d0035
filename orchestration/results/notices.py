"""What in a sweep's numbers is more likely a fault than a finding."""

from __future__ import annotations

from mcit_core.config import UNTRAINED
from mcit_core.methods import ORDERLESS
from mcit_core.stages.results import NO_SAMPLE, UNCHANGED
from orchestration.keep.tables import NOT_IN_SWEEP, OUTDATED, text_in
from orchestration.results.estimates import present
from orchestration.results.matrices import accuracy_matrix
from orchestration.results.reading import Results, finished
from orchestration.results.settings import rows_by_setting
from orchestration.results.words import setting_label

#: points by which a task's accuracy right after its own stage may lie below a later one
BROKEN = 0.2
#: of an import's own words so many are shown
MOST_SAID = 12


def notices(results: Results) -> list[str]:
    """One sentence each; none where nothing looks wrong."""
    return [
        *_set_aside(results),
        *_import_said(results),
        *_unused_seeds(results),
        *_idle_stages(results),
        *_no_sample(results),
        *_broken_stages(results),
        *_constant_answers(results),
    ]


def _set_aside(results: Results) -> list[str]:
    """Finished trials that count for nothing."""
    outdated = sum(row["status"] == OUTDATED for row in results.trials)
    found = []
    if outdated:
        found.append(
            f"{outdated} of {len(results.trials)} trials finished by other code, data or versions ({OUTDATED}); they "
            "count for nothing here until the same command has finished them anew."
        )
    if results.left:
        found.append(
            f"trials.parquet keeps {len(results.left)} finished trials that the sweep file no longer has "
            f"({NOT_IN_SWEEP}); they count for nothing here."
        )
    return found


def _import_said(results: Results) -> list[str]:
    """What an import said of what it read."""
    said = [str(line) for entry in results.imported if isinstance(lines := entry.get("said"), list) for line in lines]
    more = [f"The import said {len(said) - MOST_SAID} things more: `imported` in sweep.yaml has all."]
    return said[:MOST_SAID] + (more if len(said) > MOST_SAID else [])


def _unused_seeds(results: Results) -> list[str]:
    """Settings that train and have the same validation and test accuracies with every seed."""
    found = []
    for setting, rows in rows_by_setting(results.trials, results.axes).items():
        if setting.method in UNTRAINED:
            continue
        by_order: dict[str, list[tuple[float, ...]]] = {}
        for row in finished(rows):
            names = ("average_accuracy", "learning_accuracy", "validation/average_accuracy")
            values = tuple(present(row.get(name) for name in names))
            if any(0 < value < 1 for value in values):  # at the floor all seeds are alike
                by_order.setdefault(text_in(row, "order"), []).append(values)
        repeated = [values for values in by_order.values() if len(values) > 1]
        if repeated and all(len(set(values)) == 1 for values in repeated):
            label = setting_label(setting, results.axes)
            found.append(f"{label} has the same accuracies with every seed, as if the seed were not used.")
    return found


def _idle_stages(results: Results) -> list[str]:
    """Settings whose stages trained and left all weights as they were, as where all of a pool is claimed."""
    found = []
    for setting, rows in rows_by_setting(finished(results.trials), results.axes).items():
        stages = [stage for row in rows for stage in results.stages.get(text_in(row, "trial"), [])]
        idle = sum(UNCHANGED in stage.metrics for stage in stages)
        if idle:
            label = setting_label(setting, results.axes)
            found.append(
                f"{label} left all weights as they were in {idle} stage{'s' * (idle != 1)}: nothing was learned there."
            )
    return found


def _no_sample(results: Results) -> list[str]:
    """Settings whose pre-trained space is not of the model's pre-training data."""
    found = []
    for setting, rows in rows_by_setting(finished(results.trials), results.axes).items():
        stages = [stage for row in rows for stage in results.stages.get(text_in(row, "trial"), [])]
        if any(NO_SAMPLE in stage.metrics for stage in stages):
            found.append(setting_label(setting, results.axes))
    if not found:
        return []
    return [
        "The model comes with no sample of the data it was pre-trained on: the pre-trained space is that of the "
        f"benchmark's first task as the untuned model reads it, in {', '.join(found)}."
    ]


def _broken_stages(results: Results) -> list[str]:
    """Trials in which a task is learned far better by a later stage than by its own."""
    found = []
    for row in finished(results.trials):
        if row["method"] in ORDERLESS:
            continue
        trial = text_in(row, "trial")
        matrix = accuracy_matrix(results.stages.get(trial, []), text_in(row, "order").split(">"))
        for j, task in enumerate(matrix.tasks):
            later = present(matrix.values[t][j] for t in range(j + 1, len(matrix.tasks)))
            own = matrix.values[j][j]
            if own is not None and later and max(later) > own + BROKEN:
                found.append(
                    f"in {trial} a later stage brought {task} to {100 * max(later):.1f} per cent, its own to "
                    f"{100 * own:.1f}: a broken stage rather than transfer."
                )
    return found


def _constant_answers(results: Results) -> list[str]:
    """Tasks to which everything gets one answer right after their own stage, where more than one is right. To a blind
    model one answer can be the best."""
    found: dict[tuple[str, str], int] = {}
    for setting, rows in rows_by_setting(finished(results.trials), results.axes).items():
        if setting.method in (*UNTRAINED, "blind"):
            continue
        for stage in (stage for row in rows for stage in results.stages.get(text_in(row, "trial"), [])):
            (own,) = stage.row([stage.task or ""], "test")
            if stage.metrics.get(f"distinct_answers/{stage.task}") == 1 and own is not None and own < 1:
                place = setting_label(setting, results.axes), str(stage.task)
                found[place] = found.get(place, 0) + 1
    return [
        f"{label} gives one and the same answer to all of {task} right after learning it, in {count} "
        f"stage{'s' * (count != 1)}: it has not learned to look."
        for (label, task), count in found.items()
    ]
