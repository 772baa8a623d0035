"""What the steps of a sweep take of a GPU, as far as that is known beforehand."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from mcit_core.choices import kind_of, options_of, shown_choice
from mcit_core.config import UNTRAINED, Experiment
from mcit_core.stages.digest import digest
from mcit_core.stages.keys import tuner_fields
from orchestration.plan.trials import Trial

#: lines that are printed
MOST = 8


@dataclass
class Memory:
    """`lines` say what steps take; `peaks` are their bytes, by what they are the same for (see `kind`)."""

    lines: list[str] = field(default_factory=list)
    peaks: dict[str, float] = field(default_factory=dict)


def kind(one: Experiment) -> str | None:
    """What decides the memory of a step: model, tuner, its settings, batch, average. None where that is not known of
    the experiment beforehand."""
    if kind_of(one.model) != "hf" or one.protocol in UNTRAINED:
        return None
    average = one.averaging.model_dump().get("kind")
    train = [one.train.batch_size, one.train.accumulate, one.train.precision]
    return digest([one.model, one.tuner, tuner_fields(one, alone=False), train, average])


def memory_of(trials: Iterable[Trial]) -> Memory:
    """A line for whatever of models of kind `hf` takes another amount, and how much that is."""
    kinds: dict[str, Trial] = {}
    for trial in trials:
        if (name := kind(trial.experiment)) is not None:
            kinds.setdefault(name, trial)
    found = Memory()
    if not kinds:
        return found
    from mcit_core.models.planning import planned

    for digested, trial in [*kinds.items()][:MOST]:
        one = trial.experiment
        name = f"{trial.id} ({shown_choice(one.model)}, {one.tuner})"
        try:
            step, estimated = planned(one)
        except Exception as error:  # whatever a folder or a benchmark can hold; the sweep itself says it in full
            found.lines.append(f"{name}: memory cannot be estimated: {' '.join(str(error).split())[:200]}")
            continue
        sizes = [float(sum(parts.values())) for parts in (estimated.plain, estimated.checkpointed)]
        plain, again = (f"{size / 1e9:.2f} GB" for size in sizes)
        checkpointing = options_of(one.model).get("checkpointing")
        found.peaks[digested] = sizes[bool(checkpointing)]
        takes = f"{again}, checkpointed" if checkpointing else f"{plain}, with model.checkpointing {again}"
        rows = f"{step.batch} rows" + (f" in {one.train.accumulate} parts" if one.train.accumulate > 1 else "")
        rows += f" in each of {one.train.processes} processes" if one.train.processes > 1 else ""
        found.lines.append(
            f"{name}: a step of {rows} of {step.length} tokens takes {takes}, and about 1 GB of the GPU's own"
        )
    if len(kinds) > MOST:
        found.lines.append(f"and {len(kinds) - MOST} more that take other amounts")
    return found
