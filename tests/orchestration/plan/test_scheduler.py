"""Which trial runs when: the decisions alone; tests/end_to_end/test_stages.py has them on real Ray."""

from __future__ import annotations

import random

from hypothesis import example, given, settings
from hypothesis import strategies as st

from orchestration.plan.halving import Halving
from orchestration.plan.scheduler import BACK_OFF, BUSY, StageScheduler
from orchestration.plan.spec import HalvingRule
from orchestration.plan.stage_tree import StageTree
from tests.support.scheduling import grow, plain_choice, random_tree


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def scheduler(**chains: str) -> StageScheduler:
    """Trials by name, their stages as letters; equal beginnings are shared, a trial whose name begins with d is one of
    separate first stages."""
    tree = StageTree({}, {}, {})
    for trial, letters in chains.items():
        alone = trial.startswith("d")
        keys = [letters[i] if alone else letters[: i + 1] for i in range(len(letters))]
        tree.chains[trial] = keys
        for i, key in enumerate(keys):
            tree.steps[key] = 1
            tree.parents[key] = None if alone or i == 0 else keys[i - 1]
    made = StageScheduler(tree, clock=Clock())
    for trial in chains:
        made.add(trial)
    return made


def start(stages: StageScheduler) -> str | None:
    trial = stages.choose()
    assert trial == stages.choose()  # choosing alone changes nothing
    if trial is not None:
        stages.start(trial)
    return trial


def test_no_two_workers_get_one_stage() -> None:
    stages = scheduler(t1="abc", t2="abd", t3="xy")
    assert start(stages) == "t1"  # a is before four stages, x before two
    assert start(stages) == "t3"  # t2 waits for a
    assert start(stages) is None
    assert stages.finish("t1", 0)  # goes on with ab
    assert start(stages) is None
    assert stages.finish("t1", 1)
    assert start(stages) == "t2"
    assert stages.finish("t2", 0)  # a and ab come from the store
    assert stages.finish("t2", 1)
    stages.end("t3")
    for trial in ("t1", "t2"):
        assert stages.finish(trial, 2)
        stages.end(trial)
    assert start(stages) is None
    assert stages.places == {}


def test_a_trial_gives_up_its_worker_where_its_next_stage_is_trained_elsewhere() -> None:
    stages = scheduler(d1="ab", t1="bc")
    assert start(stages) == "t1"
    assert start(stages) == "d1"
    assert not stages.finish("d1", 0)  # b is being trained by t1
    assert start(stages) is None
    assert stages.finish("t1", 0)
    assert start(stages) == "d1"


def test_the_stage_that_most_work_waits_for_comes_first() -> None:
    stages = scheduler(t1="ab", t2="xyz", t3="xyw", t4="qrst")
    # x: 4 stages wait; q: 4, with more work of its own; a: 2
    assert [start(stages) for _ in range(4)] == ["t4", "t2", "t1", None]


def test_a_lost_worker_s_stage_is_free_again_after_a_while() -> None:
    stages = scheduler(t1="ab", t2="xy")
    assert start(stages) == "t1"
    stages.lose("t1")
    assert start(stages) == "t2"
    assert start(stages) is None
    stages.clock.now = BACK_OFF
    assert start(stages) == "t1"
    stages.lose("t1")
    stages.clock.now = 2.5 * BACK_OFF
    assert start(stages) is None  # twice as long
    stages.clock.now = 3 * BACK_OFF
    assert start(stages) == "t1"


def test_what_another_sweep_trains_is_tried_again_soon_and_no_worker_waits() -> None:
    stages = scheduler(t1="ab", t2="ac", t3="xy")
    assert start(stages) == "t1"
    stages.busy("t1")
    assert start(stages) == "t3"
    assert start(stages) is None  # t2 would find the same
    stages.clock.now = BUSY
    assert start(stages) == "t1"


def test_a_failed_trial_frees_its_stage() -> None:
    stages = scheduler(t1="ab", t2="ac")
    assert start(stages) == "t1"
    assert start(stages) is None
    stages.end("t1")
    assert start(stages) == "t2"


def test_trials_with_nothing_to_train_run_too() -> None:
    stages = scheduler(t0="", t1="a", t2="a")
    assert start(stages) == "t1"
    assert start(stages) == "t0"
    stages.end("t0")
    assert stages.finish("t1", 0)
    stages.end("t1")
    assert start(stages) == "t2"


@given(st.integers(0, 2**32), st.integers(1, 12), st.integers(1, 4), st.integers(1, 4), st.booleans(), st.booleans())
@example(4021, 1, 2, 3, False, False)  # a trial that was lost and busy until the steps ran out
@settings(max_examples=300, deadline=None)
def test_the_choice_is_that_of_looking_at_every_trial(
    seed: int, trials: int, length: int, branches: int, racing: bool, growing: bool
) -> None:
    rng = random.Random(seed)
    whole, tree = random_tree(rng, trials, length, branches), StageTree({}, {}, {})
    names = list(whole.chains)
    halving = None
    if racing and length > 1:
        halving = Halving(HalvingRule(1, 2), {name: name[-1] for name in names[: trials // 2]}, length)
    later = names[trials // 2 :] if growing else []
    for name in names[: len(names) - len(later)]:
        grow(tree, whole, name)
    stages = StageScheduler(tree, halving, clock=Clock())
    for name in [*tree.chains]:
        stages.add(name, rng.randrange(2))
    at: dict[str, int] = {}
    elsewhere: dict[str, float] = {}
    # accidents for a while, so that whatever their number all can end
    for step in range(200 * trials * length):
        accidents = step < 20 * trials * length
        if later and rng.random() < 0.2:
            stages.extend(grow(tree, whole, later[0]))
            stages.add(later.pop(0), rng.randrange(3))
        for name in [*(halving.stopped if halving else ())]:
            if name in stages.places:
                stages.end(name)
        stages.clock.now += rng.choice([0.0, 0.5, 5.0])
        elsewhere = {key: until for key, until in elsewhere.items() if until > stages.clock.now}
        chosen = stages.choose()
        assert chosen == plain_choice(stages, elsewhere.keys())
        if chosen is not None and (not at or rng.random() < 0.6):
            stages.start(chosen)
            at[chosen] = 0
        elif at:
            name = rng.choice(sorted(at))
            if accidents and rng.random() < 0.1 and stages.places[name].lost < 3:
                del at[name]
                stages.lose(name)
            elif accidents and rng.random() < 0.1 and stages.places[name].claim == tree.chains[name][at[name]]:
                elsewhere[tree.chains[name][at.pop(name)]] = stages.clock.now + BUSY
                stages.busy(name)
            elif accidents and rng.random() < 0.02:
                del at[name]
                stages.end(name)
            elif stages.finish(name, at[name], rng.random()) and at[name] < length - 1:
                at[name] += 1
            elif at.pop(name) == length - 1 and name in stages.running:
                stages.end(name)
    assert not stages.places
    assert not later
