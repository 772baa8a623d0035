"""What the steps of a sweep take of a GPU, as far as that is known beforehand."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator

from mcit_core.choices import kind_of, shown_choice
from mcit_core.config import UNTRAINED, Experiment

#: lines that are printed
MOST = 8


def memory_lines(experiments: Iterable[Experiment]) -> Iterator[str]:
    """A line for each model and tuner of kind `hf`, of the trial with the largest batch."""
    largest: dict[tuple[str, str], Experiment] = {}
    for one in experiments:
        if kind_of(one.model) == "hf" and one.protocol not in UNTRAINED:
            place = json.dumps(one.model, sort_keys=True), one.tuner
            known = largest.get(place)
            if known is None or _at_once(one) > _at_once(known):
                largest[place] = one
    if not largest:
        return
    from mcit_core.models.planning import planned

    for one in [*largest.values()][:MOST]:
        name = f"{shown_choice(one.model)}, {one.tuner}"
        try:
            step, found = planned(one)
        except Exception as error:  # whatever a folder or a benchmark can hold; the sweep itself says it in full
            yield f"{name}: memory cannot be estimated: {' '.join(str(error).split())[:200]}"
            continue
        plain, again = (sum(parts.values()) / 1e9 for parts in (found.plain, found.checkpointed))
        yield (
            f"{name}: a step of {_at_once(one)} rows of {step.length} tokens takes {plain:.2f} GB, with "
            f"model.checkpointing {again:.2f} GB, and about 1 GB of the GPU's own"
        )
    if len(largest) > MOST:
        yield f"and {len(largest) - MOST} more models and tuners"


def _at_once(experiment: Experiment) -> int:
    """Rows that are read at once."""
    return -(-experiment.train.batch_size // experiment.train.accumulate)
