"""Every metric by name: its title, which way is better, what it means, its unit."""

from __future__ import annotations

from dataclasses import dataclass

REFERENCES = ("zero_shot", "sequential", "direct")


TRIAL_COLUMNS = (
    "trial",
    "method",
    "tuner",
    "tuner_settings",
    "seed",
    "order",
    "status",
    "error",
    "seconds",
    "stages_trained",
    "stages_reused",
)


#: columns that are part of a setting where methods are compared
TUNER = ("tuner", "tuner_settings")


#: what tells the repetitions of a setting apart
UNIT = ("seed", "order")


@dataclass(frozen=True)
class Metric:
    """How a metric is named, read and printed. better: "higher", "lower" or "" (a cost, not a verdict)."""

    name: str
    title: str
    better: str
    meaning: str
    unit: str = "percent"

    @property
    def arrow(self) -> str:
        """Which way is better, to stand behind the title."""
        return {"higher": " ↑", "lower": " ↓", "": ""}[self.better]


METRICS = (
    Metric("average_accuracy", "average accuracy", "higher", "mean accuracy over all tasks after the last stage"),
    Metric(
        "learning_accuracy",
        "learning accuracy",
        "higher",
        "mean accuracy on each task right after the stage that learned it",
    ),
    Metric(
        "mean_average_accuracy",
        "mean average accuracy",
        "higher",
        "after every stage the mean over the tasks learned so far, averaged over the stages",
    ),
    Metric(
        "forgetting",
        "forgetting",
        "lower",
        "how far each earlier task fell from its best accuracy to its accuracy at the end",
    ),
    Metric(
        "backward_transfer",
        "backward transfer",
        "higher",
        "change of each earlier task between its own stage and the end; negative means it was forgotten",
    ),
    Metric(
        "forward_transfer",
        "forward transfer",
        "higher",
        "accuracy on a task just before it is learned, minus that of the untouched model (zero_shot)",
    ),
    Metric(
        "transfer_to_direct",
        "transfer to direct",
        "higher",
        "accuracy right after learning a task, minus that of learning it alone from the untouched model (direct); "
        "negative means earlier tasks hurt the learning of later ones",
    ),
    Metric(
        "intransigence",
        "intransigence",
        "lower",
        "accuracy of each task learned alone (direct), minus that right after its stage in the sequence",
    ),
    Metric(
        "content_average_accuracy",
        "content accuracy",
        "higher",
        "average accuracy when an answer that is right in content counts whatever format was asked for",
    ),
    Metric("content_forgetting", "content forgetting", "lower", "forgetting, measured on content accuracy"),
    Metric(
        "pretrained_retention",
        "pre-trained retention",
        "higher",
        "accuracy left on a held-out sample of the model's own pre-training mixture, as a share of the original",
    ),
    Metric("trained_parameters", "trained parameters", "", "number of parameters that training changes", "count"),
    Metric("memory_bytes", "kept state (MiB)", "", "size of what the last stage leaves for a next one", "mebibytes"),
)


METRIC = {metric.name: metric for metric in METRICS}


HEADLINE = ("average_accuracy", "forgetting", "forward_transfer", "transfer_to_direct")
