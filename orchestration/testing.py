"""The contract of a search as a suite of pytest: subclass it in your own tests, name your search, and run pytest.

    from orchestration.testing import SearchContract

    class TestMine(SearchContract):
        search = {"kind": "mine", "trials": 12}   # as a sweep file has it; registered by your package's entry point

Needs pytest. Nothing is trained.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace
from pathlib import Path

import yaml
from pydantic import JsonValue, TypeAdapter

from orchestration.plan.space import Space
from orchestration.plan.spec import SweepSpec
from orchestration.plan.sweep_file import load_spec
from orchestration.search import Proposal, Search
from orchestration.search.course import search_of
from orchestration.search.settings import SearchSettings

#: numbers, whole numbers, steps, names, a condition, and points that make no sense (top_k above size)
AXES: dict[str, JsonValue] = {
    "pool.size": {"low": 10, "high": 40, "step": 5},
    "pool.top_k": {"low": 2, "high": 24},
    "train.lr": {"low": 0.001, "high": 1.0, "log": True},
    "projection.mode": ["none", "both"],
    "projection.task_energy": {"low": 0.4, "high": 0.99, "when": {"projection.mode": "both"}},
}
#: six points, of which one makes no sense
FEW: dict[str, JsonValue] = {"pool.size": [10, 20, 40], "pool.top_k": [8, 16]}
_PROPOSAL = TypeAdapter(Proposal)


def judge(proposal: Proposal, settings: SearchSettings) -> Proposal:
    """A proposal as one is told: most are complete, some failed, some were pruned."""
    if proposal.number % 7 == 3:
        return replace(proposal, state="failed")
    if proposal.number % 7 == 5:
        return replace(proposal, state="pruned", partial=(1, 0.25))
    lr = float(str(proposal.values.get("train.lr", 0.1)))
    good = 0.8 - 0.1 * abs(math.log10(lr / 0.03)) - 0.002 * int(str(proposal.values.get("pool.size", 20)))
    objectives = tuple(good + 0.1 * i for i, _ in enumerate(settings.objectives))
    return replace(
        proposal, state="complete", objectives=objectives, constraints=dict.fromkeys(settings.constraints, -0.1)
    )


class SearchContract:
    """What every search that proposes in batches promises."""

    search: dict[str, JsonValue]
    batches = 6

    def make(self, folder: Path, axes: dict[str, JsonValue] = AXES) -> tuple[Search, SearchSettings, SweepSpec]:
        path = folder / "contract.yaml"
        base = {"name": "contract", "benchmark": "mini", "model": "mini", "method": "fwd_prompt", "tasks": 2}
        path.write_text(yaml.safe_dump({**base, "axes": axes, "search": self.search}))
        spec = load_spec(path)
        search, settings = search_of(spec)
        assert isinstance(settings, SearchSettings)
        return search, settings, spec

    def played(self, search: Search, settings: SearchSettings, begin: int = 0) -> list[list[Proposal]]:
        """The batches from `begin` on, each told as running at once and its outcome a batch later."""
        found: list[list[Proposal]] = []
        for batch in range(begin, self.batches):
            ended = [one for one in search.state() if one.batch < batch - 1 and one.state == "running"]
            search.tell(judge(one, settings) for one in ended)
            found.append(search.propose(batch))
            search.tell(found[-1])
        return found

    def test_proposals_are_points_of_the_space_that_make_sense(self, tmp_path: Path) -> None:
        search, settings, spec = self.make(tmp_path)
        space = Space(spec)
        for one in (one for batch in self.played(search, settings) for one in batch):
            assert space.holds(one.values), one
            assert space.fault(one.values) is None, one
            assert one.state == "running"

    def test_batches_are_numbered_and_full(self, tmp_path: Path) -> None:
        search, settings, _ = self.make(tmp_path)
        for number, batch in enumerate(self.played(search, settings)):
            first = number * settings.batch
            assert [one.number for one in batch] == list(range(first, first + settings.batch))
            assert {one.batch for one in batch} == {number}

    def test_nothing_is_proposed_twice(self, tmp_path: Path) -> None:
        search, settings, _ = self.make(tmp_path)
        points = [str(one.values) for batch in self.played(search, settings) for one in batch]
        assert len(set(points)) == len(points)

    def test_another_one_that_is_told_the_same_proposes_the_same(self, tmp_path: Path) -> None:
        search, settings, _ = self.make(tmp_path)
        assert self.played(search, settings) == self.played(*self.make(tmp_path)[:2])

    def test_it_goes_on_from_its_state_as_a_file_has_it(self, tmp_path: Path) -> None:
        whole = self.played(*self.make(tmp_path)[:2])
        for stop in range(1, self.batches):
            search, settings, _ = self.make(tmp_path)
            again, _, _ = self.make(tmp_path)
            for batch in range(stop):
                ended = [one for one in search.state() if one.batch < batch - 1 and one.state == "running"]
                search.tell(judge(one, settings) for one in ended)
                search.tell(whole[batch])
            again.tell(_PROPOSAL.validate_python(json.loads(json.dumps(asdict(one)))) for one in search.state())
            assert self.played(again, settings, stop) == whole[stop:]

    def test_another_seed_proposes_others(self, tmp_path: Path) -> None:
        first = self.played(*self.make(tmp_path)[:2])
        self.search = {**self.search, "seed": 12345}
        assert self.played(*self.make(tmp_path)[:2]) != first

    def test_a_space_that_is_used_up_ends_it(self, tmp_path: Path) -> None:
        search, settings, _ = self.make(tmp_path, FEW)
        assert len([one for batch in self.played(search, settings) for one in batch]) == 5

    def test_a_point_known_from_elsewhere_is_not_proposed(self, tmp_path: Path) -> None:
        search, settings, _ = self.make(tmp_path, FEW)
        known = Proposal(-1, -1, {"pool.size": 20, "pool.top_k": 8})
        search.tell([replace(judge(replace(known, number=0), settings), number=-1)])
        points = [one.values for batch in self.played(search, settings) for one in batch]
        assert known.values not in points
        assert len(points) == 4
