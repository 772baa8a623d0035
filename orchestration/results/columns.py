"""The data dictionary: every column of a RUN's four Parquet files, and every name that its long tables may hold.

`python -m orchestration.results --columns` prints it; docs/columns.md is that print.
"""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass
from typing import Literal

from mcit_core.metrics import CATALOGUE, METRICS

Table = Literal["trials", "accuracy", "stages", "steps"]


@dataclass(frozen=True)
class Column:
    """`name`: of a column, or of what a long table's column `name` holds, `*` for a task or a number. `low` and `high`:
    what it may be, None where there is no bound. `null`: what a missing value means, "" where there is none."""

    name: str
    meaning: str
    unit: str = "text"
    low: float | None = None
    high: float | None = None
    null: str = ""

    @property
    def range(self) -> str:
        if self.low is None and self.high is None:
            return ""
        return (
            f"{'' if self.low is None else f'{self.low:g}'} to {'' if self.high is None else f'{self.high:g}'}".strip()
        )


def share(name: str, meaning: str, null: str = "", low: float = 0.0) -> Column:
    return Column(name, meaning, "share", low, 1.0, null)


def count(name: str, meaning: str, low: float = 0.0) -> Column:
    return Column(name, meaning, "count", low)


_NO_TRAINING = "the trial trains nothing"
_TRIAL = Column("trial", "its name; joins the four tables")
_STAGE = Column("stage", "counted from 0; -1 is the untouched model", "count", -1.0)

TABLES: dict[Table, list[Column]] = {
    "trials": [
        _TRIAL,
        Column("method", "the preset, or the reference"),
        Column("tuner", "what is trained", null=_NO_TRAINING),
        Column(
            "tuner_settings", "its settings other than their defaults", null="there are none, or an axis holds them"
        ),
        count("seed", "of the experiment"),
        Column("order", "the tasks in the order of training, with > between them"),
        Column(
            "status",
            "FINISHED, FAILED, UNFINISHED, STOPPED (early, by a rule), OUTDATED, NOT_IN_SWEEP; only FINISHED count",
        ),
        Column("error", "the traceback, or why it does not count", null="nothing went wrong"),
        Column(
            "seconds", "of training and evaluation, as they were measured where they ran", "s", 0.0, null="imported"
        ),
        count("stages_trained", "in the last command"),
        count("stages_reused", "in the last command, from the store"),
        Column("key", "changes with all that the numbers follow from beside the experiment", null="not known yet"),
        count("setting", "of a search: the number of the setting, in the order in which they were proposed"),
        count("batch", "of a search: the batch that brought the trial"),
        Column("state", "of a search: complete, pruned or failed, as its setting", null="it runs, or is a reference"),
    ],
    "accuracy": [
        _TRIAL,
        Column("method", "as in trials"),
        count("seed", "as in trials"),
        Column("order", "as in trials"),
        _STAGE,
        Column("stage_task", "the task that the stage learned", null="the untouched model, or joint training"),
        Column("task", "the task that was evaluated"),
        Column("split", "validation or test"),
        share("accuracy", "mean score over the rows; of public benchmarks by the convention that `scoring` names"),
        share("content_accuracy", "right in content, whatever the form", "not known of imported results"),
        count("n", "rows; 0 where an import does not tell it"),
        share("accuracy_strict", "mean score by the data set's own rule", "the benchmark has one rule"),
        share("format_accuracy", "share of answers that have the form of a right one", "the benchmark has one rule"),
    ],
    "stages": [
        _TRIAL,
        _STAGE,
        Column("task", "the task that the stage learned", null="the untouched model"),
        Column("name", "what was measured: see the names below"),
        Column("value", "its value", "of the name"),
    ],
    "steps": [
        _TRIAL,
        Column("stage", "counted from 0", "count", 0.0),
        count("step", "optimizer step of the stage, from 0"),
        Column("name", "what was traced: see the names below"),
        Column("value", "its value", "of the name", null="undefined at that step"),
    ],
}

#: what stages.parquet's column `name` holds; a tuner or protection of another package may add names
STAGE_NAMES: list[Column] = [
    Column("seconds/train", "by the clock", "s", 0.0),
    Column("seconds/train_cpu", "of the process's CPU", "s", 0.0),
    Column("seconds/evaluate", "by the clock", "s", 0.0),
    Column("seconds/evaluate_cpu", "of the process's CPU", "s", 0.0),
    Column("loss/first", "of the first step", "nats"),
    Column("loss/last", "mean of the last ten steps", "nats"),
    Column("memory/peak", "of a GPU's memory at once, by tensors, in training; only on a GPU", "bytes", 0.0),
    count("trained_parameters", "numbers that the optimizer moves"),
    count("memory_bytes", "what the stage leaves for later ones, in bytes"),
    share("weights_unchanged", "1 where no weight has moved at all"),
    share("pretraining_accuracy", "of the untouched model on its own held-out rows"),
    Column(
        "pretrained_retention",
        "accuracy on the model's own held-out rows, divided by that of the untouched model",
        "ratio",
        0.0,
    ),
    share(
        "content_forward_transfer_untrained",
        "mean over later tasks: content accuracy before their stage minus that of the untrained tuner",
        low=-1.0,
    ),
    count("distinct_answers/*", "different answers to the task's test rows", 1.0),
    share(
        "answer_shape/*/*",
        "answers to the task's test rows that have the form: letter, digit, word, phrase, sentence, box, list, nothing",
    ),
    share("prompt_usage/*/*", "selections of the stage's test rows that took the prompt of this number"),
    share("key_drift/*", "test rows of an earlier task whose prompts are not those that they had after its own stage"),
    share("prompts_kept/*", "of the prompts that a row had after its task's own stage, those that it still has"),
    Column(
        "pool/effective_prompts",
        "prompts in effective use: the exponential of the entropy of their usage",
        "count",
        1.0,
    ),
    count("pool/claimed_before", "prompts that earlier stages have claimed"),
    count("subspace/rank", "directions that the stage claims"),
    count("subspace/dims_left", "directions open to the stage, before its claim"),
    count("subspace/allowed", "directions that gradients were projected to"),
    Column(
        "subspace/occupied",
        "directions that earlier stages have claimed; under pegp the share of each site's, mean over sites",
        "count or share",
        0.0,
    ),
    share("subspace/exhausted", "1 where no direction was left"),
    share("subspace/no_sample", "1 where the pre-trained space is that of the first task's rows, for want of a sample"),
    count("subspace/sites", "tensors that pegp projects"),
    count("subspace/frozen_sites", "of these, those that nothing is left to"),
    share("subspace/gradient_allowed", "of the raw gradient's energy, that in the directions that it was projected to"),
    share("subspace/gradient_occupied", "of the raw gradient's energy, that in directions that earlier stages claimed"),
    share("subspace/gradient_other", "of the raw gradient's energy, the rest"),
    count("grouping/groups", "instruction groups so far", 1.0),
    share("grouping/accuracy/*", "the task's test rows that were sent to its own group"),
    count("grouping/group/*", "the number of the task's own group"),
    share("grouping/sent/*/*", "the task's test rows that were sent to the group of this number"),
    share("ema/mean_weight", "mean over steps of the weight on the old average"),
    Column("ema/mean_*", "mean over steps of what steps.parquet has under ema/*", "as there"),
]

#: what steps.parquet's column `name` holds
STEP_NAMES: list[Column] = [
    Column("loss", "of the step's batch, what a tuner or protection adds included", "nats"),
    share(
        "ema/weight", "weight on the old average; per_tensor: the mean over tensors", "per_tensor's first step has none"
    ),
    Column("ema/raw", "the Taylor weight before it is bounded", "ratio", null="undefined"),
    share("ema/outside", "tensors whose weight fell outside (0, 1)", "per_tensor's first step has none"),
    share("ema/undefined", "tensors whose weight was undefined", "per_tensor's first step has none"),
    Column("ema/gradient", "L1 norm of the gradient", "L1 norm", 0.0),
    Column("ema/gradient_change", "L1 norm of its change since the last step", "L1 norm", 0.0),
    Column("ema/weight_change", "L1 norm of the weights' change since the last step", "L1 norm", 0.0),
    Column("ema/distance", "L1 norm of the weights minus the average", "L1 norm", 0.0),
]

_UNITS = {"percent": "share", "count": "count", "mebibytes": "bytes", "seconds": "s"}
_UNDEFINED = "undefined: a cell, a reference or an earlier task is missing, or the trial has no end"


def _metrics() -> list[Column]:
    """The metrics of a trial, and the same on validation rows and of a trial that has no end yet."""
    found = []
    for name, entry in CATALOGUE.items():
        whole = entry.unit != "percent"
        low = 0.0 if whole or name in ("average_accuracy", "learning_accuracy", "mean_average_accuracy") else -1.0
        bounded = not whole and name != "pretrained_retention"
        low = 0.0 if name == "pretrained_retention" else low
        found.append(Column(name, entry.meaning, _UNITS[entry.unit], low, 1.0 if bounded else None, _UNDEFINED))
    known = {column.name: column for column in found}
    for prefix, words in (
        ("validation", "on validation rows"),
        ("partial", "after the stages that it has; of a trial that has no end"),
    ):
        for name in METRICS:
            one = known[name]
            found.append(Column(f"{prefix}/{name}", f"{one.meaning}, {words}", one.unit, one.low, one.high, _UNDEFINED))
    return found


def columns(table: Table) -> list[Column]:
    """All of a table; of trials also the metrics, and `axis` for every axis of the sweep."""
    if table != "trials":
        return TABLES[table]
    axis = Column(
        "<axis>", "an axis of the sweep, by its dotted path", "of the field", null="it does not apply to the trial"
    )
    return [*TABLES["trials"], axis, *_metrics()]


def find(name: str, among: list[Column]) -> Column | None:
    """The entry of a name, by itself or by its pattern."""
    exact = [column for column in among if column.name == name]
    return next(iter([*exact, *(column for column in among if fnmatch.fnmatchcase(name, column.name))]), None)


_WHAT: dict[Table, str] = {
    "trials": "A row a trial.",
    "accuracy": "A row for each trial, stage, task and split that was evaluated.",
    "stages": "A row for each thing that a stage measured.",
    "steps": "A row for each thing that a training step left.",
}


def as_markdown() -> str:
    lines = [
        "# Every column of a RUN",
        "",
        "Printed by `python -m orchestration.results --columns`. Shares are stored in [0, 1]; only what is shown is",
        "multiplied by 100. In SQL, names with a dot, a slash or a meaning of their own stand in double quotes:",
        """`"order"`, `"projection.task_energy"`, `"validation/average_accuracy"`.""",
        "",
    ]
    for table, what in _WHAT.items():
        lines += [f"## {table}.parquet", "", what, "", *_rows(columns(table)), ""]
        names = {"stages": STAGE_NAMES, "steps": STEP_NAMES}.get(table)
        if names:
            lines += ["What `name` holds:", "", *_rows(names), ""]
    return "\n".join(lines)


def _rows(found: list[Column]) -> list[str]:
    head = ["| name | meaning | unit | range | null |", "|---|---|---|---|---|"]
    return head + [f"| `{c.name}` | {c.meaning} | {c.unit} | {c.range} | {c.null} |" for c in found]
