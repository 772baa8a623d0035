"""A team of real processes: what it shares out, adds up and notices."""

from __future__ import annotations

import os
import time
import uuid
from datetime import timedelta
from typing import Any

import pytest
import torch

from mcit_core import parallel
from mcit_core.parallel import ALONE, PeerError, Team, join, launched, listen
from tests.support.sweeping import listening
from tests.support.teams import HOST, in_team


@pytest.mark.parametrize("size", [1, 2, 3, 5])
@pytest.mark.parametrize(("own", "replayed"), [(0, 1), (4, 0), (5, 2), (7, 7)])
def test_the_parts_are_those_of_one_batch(size: int, own: int, replayed: int) -> None:
    batch = [f"row {i}" for i in range(own + replayed)]
    teams = [Team(rank, size) for rank in range(size)]
    parts = [[*batch[:own][team.part()], *batch[own:][team.part(own)]] for team in teams]
    assert parts == [batch[rank::size] for rank in range(size)]
    assert sorted(row for part in parts for row in part) == sorted(batch)


def test_one_process_adds_nothing_up() -> None:
    tensor = torch.ones(2)
    assert ALONE.sum([tensor])[0] is tensor
    assert ALONE.count(3, 4) == [3, 4]
    assert ALONE.all(True)
    assert not ALONE.all(False)
    ALONE.check_alike({"anything": tensor})


def adding(team: Team, mark: str) -> dict[str, Any]:
    big = 2**60 + team.rank  # which float64 does not hold
    tensors = [
        torch.full((2, 3), 0.1 * team.rank),
        torch.tensor(big),
        torch.tensor([1e-17, 1.0], dtype=torch.float64),
        torch.tensor(3),
    ]
    found: dict[str, Any] = {"sums": team.sum(tensors), "ports": listening(mark) if not team.rank else {}}
    found |= {"count": team.count(team.rank, 10), "all": [team.all(True), team.all(team.rank == 1)]}
    alike = {"weights": torch.arange(4.0), "loss": torch.tensor(0.5)}
    team.check_alike(alike)
    turned = torch.arange(4.0).roll(team.rank)  # the same entries in other places
    rounded = torch.tensor(0.5) if team.rank else torch.tensor(0.5).nextafter(torch.tensor(1.0))
    faults = {}
    for name, told in {
        "value": {**alike, "weights": turned},
        "bit": {**alike, "weights": rounded},
        "name": {**alike, f"more{team.rank}": torch.ones(1)},
    }.items():
        try:
            team.check_alike(told)
        except RuntimeError as error:
            faults[name] = str(error)
    return {**found, "faults": faults}


def test_sums_are_exact_and_the_same_in_all_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    mark = uuid.uuid4().hex
    monkeypatch.setenv("MCIT_TEST_TEAM", mark)
    found = in_team(2, adding, mark)
    for one in found:
        floats, whole, doubles, three = one["sums"]
        assert torch.equal(floats, torch.full((2, 3), 0.1))
        assert whole.item() == 2**61 + 1
        assert torch.equal(doubles, torch.tensor([2e-17, 2.0], dtype=torch.float64))
        assert (three.item(), three.dtype, three.shape) == (6, torch.int64, ())
        assert one["count"] == [1, 20]
        assert one["all"] == [True, False]
        assert "different values of weights: these saw the rows of one process" in one["faults"]["value"]
        assert "different values of weights: these saw the rows of one process" in one["faults"]["bit"]
        assert "of other names: loss, more" in one["faults"]["name"]
    ports = found[0]["ports"]
    assert ports  # the first one's meeting place; what they send each other it listens for only until they have met
    assert all(place.startswith("0100007F:") for place in ports), ports  # no other machine reaches them


def test_who_does_not_come_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "MEET", timedelta(seconds=1))
    monkeypatch.setattr(os, "environ", {**os.environ})
    with (
        listen(HOST) as listener,
        pytest.raises(PeerError, match="process 0 of 2 of the trial did not find the others"),
    ):
        join(0, 2, (HOST, listener.getsockname()[1]), HOST, listener)


#: what torchrun tells the first of several processes
FIRST = {"RANK": "0", "LOCAL_RANK": "0", "MASTER_ADDR": HOST, "MASTER_PORT": "0"}


@pytest.mark.parametrize(
    ("told", "error", "said"),
    [
        ({}, ValueError, r"WORLD_SIZE is 2, .* \(RANK, LOCAL_RANK, MASTER_PORT, MASTER_ADDR\)"),
        ({**FIRST, "MASTER_PORT": ""}, ValueError, r"\(MASTER_PORT\)"),
        ({**FIRST, "RANK": "x"}, ValueError, r"\(RANK\)"),
        ({**FIRST, "WORLD_SIZE": "two"}, ValueError, r"\(WORLD_SIZE\)"),
        (FIRST, PeerError, "the other processes did not come"),
    ],
)
def test_a_stray_world_size_is_refused(
    told: dict[str, str], error: type[Exception], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parallel, "MEET", timedelta(seconds=1))
    monkeypatch.setattr(os, "environ", {**os.environ, "WORLD_SIZE": "2", **told})
    with pytest.raises(error, match=said):
        launched()


def coming_late(team: Team) -> str:
    if team.rank:
        time.sleep(4)
        return ""
    try:
        return str(team.count(1))
    except PeerError as error:
        return str(error)


def test_a_sum_waits_for_as_long_as_sums_may_and_not_as_a_meeting() -> None:
    assert "lost another" in in_team(2, coming_late, wait=1.0)[0]


def losing(team: Team, how: str) -> tuple[str, float]:
    assert team.count(1) == [2]
    if team.rank and how == "dies":
        os._exit(1)
    if team.rank:
        return how, 0.0  # and leaves the team
    begun = time.monotonic()
    try:
        team.count(1)
    except PeerError as error:
        return str(error), time.monotonic() - begun
    return "nothing noticed", 0.0


@pytest.mark.parametrize(("how", "answering"), [("dies", 1), ("leaves", 2)])
def test_a_lost_process_is_noticed_at_once(how: str, answering: int) -> None:
    said, seconds = in_team(2, losing, how, answering=answering)[0]
    assert "process 0 of 2 of the trial lost another" in said
    assert seconds < 20
