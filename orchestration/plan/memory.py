"""What the steps of a sweep take of a GPU, as far as that is known beforehand."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from mcit_core.choices import kind_of, options_of, shown_choice
from mcit_core.config import UNTRAINED
from mcit_core.stages.digest import digest
from mcit_core.stages.keys import tuner_fields
from orchestration.plan.trials import Trial

#: lines that are printed
MOST = 8


def memory_lines(trials: Iterable[Trial]) -> Iterator[str]:
    """A line for whatever of models of kind `hf` takes another amount: model, tuner, its settings, batch, average."""
    found: dict[str, Trial] = {}
    for trial in trials:
        one = trial.experiment
        if kind_of(one.model) == "hf" and one.protocol not in UNTRAINED:
            average = one.averaging.model_dump().get("kind")
            train = [one.train.batch_size, one.train.accumulate, one.train.precision]
            found.setdefault(digest([one.model, one.tuner, tuner_fields(one, alone=False), train, average]), trial)
    if not found:
        return
    from mcit_core.models.planning import planned

    for trial in [*found.values()][:MOST]:
        one = trial.experiment
        name = f"{trial.id} ({shown_choice(one.model)}, {one.tuner})"
        try:
            step, estimated = planned(one)
        except Exception as error:  # whatever a folder or a benchmark can hold; the sweep itself says it in full
            yield f"{name}: memory cannot be estimated: {' '.join(str(error).split())[:200]}"
            continue
        plain, again = (f"{sum(parts.values()) / 1e9:.2f} GB" for parts in (estimated.plain, estimated.checkpointed))
        checkpointing = options_of(one.model).get("checkpointing")
        takes = f"{again}, checkpointed" if checkpointing else f"{plain}, with model.checkpointing {again}"
        rows = f"{step.batch} rows" + (f" in {one.train.accumulate} parts" if one.train.accumulate > 1 else "")
        rows += f" in each of {one.train.processes} processes" if one.train.processes > 1 else ""
        yield f"{name}: a step of {rows} of {step.length} tokens takes {takes}, and about 1 GB of the GPU's own"
    if len(found) > MOST:
        yield f"and {len(found) - MOST} more that take other amounts"
