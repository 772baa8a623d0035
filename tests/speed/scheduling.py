"""What a decision of the scheduler costs: `python tests/speed/scheduling.py --trials 100 1000 10000`.

Runs sweeps of six stages in which nothing is trained, on eight workers, and prints the decisions a second of the heap,
and beside it those of looking at every trial, which is what it is held against in the tests.
"""

from __future__ import annotations

import argparse
import random
import time

from orchestration.plan.scheduler import StageScheduler
from tests.support.scheduling import plain_choice, random_tree

STAGES, WORKERS = 6, 8
#: looking at every trial is timed for so many decisions
PLAIN = 50


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, nargs="+", default=[100, 1000, 10000])
    print(f"{'trials':>8}{'decisions':>11}{'heap, a second':>16}{'every trial, a second':>23}")
    for trials in parser.parse_args().trials:
        begun = time.process_time()
        stages = StageScheduler(random_tree(random.Random(0), trials, STAGES, 12))
        for name in stages.tree.chains:
            stages.add(name)
        made, plain, looked = 0, 0.0, 0
        at: dict[str, int] = {}
        while stages.places:
            if looked < PLAIN:
                before = time.process_time()
                plain_choice(stages)
                plain += time.process_time() - before
                looked += 1
            made += 1
            name = stages.choose() if len(at) < WORKERS else None
            if name is not None:
                stages.start(name)
                at[name] = 0
                continue
            name = next(iter(at))
            stage = at.pop(name)
            if stage == STAGES - 1:
                stages.finish(name, stage)
                stages.end(name)
            elif stages.finish(name, stage):
                at[name] = stage + 1
        seconds = time.process_time() - begun - plain
        print(f"{trials:8}{made:11}{made / seconds:16.0f}{looked / plain:23.0f}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
