"""The bounds in pyproject.toml promise what is tested: the versions of requirements.lock."""

from __future__ import annotations

import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.support.places import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCK = {
    canonicalize_name(name): Version(version)
    for name, version in (line.split("==") for line in (ROOT / "requirements.lock").read_text().split())
}
REQUIREMENTS = [
    Requirement(text)
    for text in [*PROJECT["dependencies"], *(one for many in PROJECT["optional-dependencies"].values() for one in many)]
    if not text.startswith("mcit[")  # one group that takes another in
]


@pytest.mark.parametrize("requirement", REQUIREMENTS, ids=lambda requirement: requirement.name)
def test_every_dependency_has_a_lower_bound_that_the_lock_keeps(requirement: Requirement) -> None:
    lower = [Version(bound.version) for bound in requirement.specifier if bound.operator in (">=", "==", "~=")]
    locked = LOCK[canonicalize_name(requirement.name)]
    assert len(lower) == 1, f"{requirement}: expected one lower bound"
    assert lower[0] <= locked
    assert locked in requirement.specifier


def test_ray_is_bounded_by_the_tested_series() -> None:
    """orchestration/run uses names that Ray does not promise; tests/orchestration/run/test_ray_names.py lists them."""
    (ray,) = (requirement for requirement in REQUIREMENTS if requirement.name == "ray")
    major, minor = LOCK["ray"].release[:2]
    assert f"{major}.{minor}.99" in ray.specifier
    assert f"{major}.{minor + 1}.0" not in ray.specifier
