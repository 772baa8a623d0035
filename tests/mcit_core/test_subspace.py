"""Subspaces against examples worked by hand, and the laws that hold for every one."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import accumulate

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from mcit_core.subspace import (
    allowed_basis,
    complement,
    effective_rank,
    energy_rank,
    leading,
    merge,
    overlap,
    project,
    residual,
    spectrum,
)


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Matrices this small only lose by threads, badly so on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


law = settings(derandomize=True, deadline=None, max_examples=50)
seeds = st.integers(0, 2**31)


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def basis_of(seed: int, d: int, k: int) -> Tensor:
    q: Tensor = torch.linalg.qr(normal(seed, d, k)).Q
    return q


def axes(d: int, *indices: int) -> Tensor:
    """The given coordinate directions as columns."""
    return torch.eye(d, dtype=torch.float64)[:, list(indices)]


def projector(basis: Tensor) -> Tensor:
    return basis @ basis.T


def largest(tensor: Tensor) -> float:
    return float(tensor.abs().max()) if tensor.numel() else 0.0


def defect(basis: Tensor) -> float:
    """How far the columns are from orthonormal."""
    return largest(basis.T @ basis - torch.eye(basis.shape[1], dtype=torch.float64))


# Energy rank ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "threshold", "rank"),
    [
        ([3, 1], 0.75, 1),  # 3/4 reaches exactly
        ([3, 1], 0.7500001, 2),
        ([1, 3], 0.75, 1),  # any order
        ([0.3, 0.1], 0.75, 1),  # 0.3 / 0.4 reaches but for round-off
        ([0.1] * 10, 0.3, 3),  # 0.1 + 0.1 + 0.1 of 1
        ([1] * 10, 0.7, 7),
        ([9, 4, 2, 1], 0.5, 1),  # 9/16, 13/16, 15/16, 16/16
        ([9, 4, 2, 1], 0.6, 2),
        ([9, 4, 2, 1], 0.9, 3),
        ([9, 4, 2, 1], 0.95, 4),
        ([9, 4, 2, 1], 1e-300, 1),
        ([5], 0.01, 1),
        ([5, 0, 0], 1, 1),  # full rank does not count zeros,
        ([1, 1e-10, 1e-15], 1, 3),  # counts 1e-15 > 1 * 3 * 2.2e-16,
        ([1, 1e-10, 1e-16], 1, 2),  # but not 1e-16
        ([1e-200, 1e-200], 1, 2),  # relative to the largest, not absolute
        ([1e308, 1e308, 1e308], 1, 3),
        ([1.0, -1e-16], 1, 1),  # negative by round-off
        ([0, 0, 0], 0.5, 0),
        ([0, 0, 0], 1, 0),
        ([], 0.5, 0),
    ],
)
def test_energy_rank_by_hand(values: list[float], threshold: float, rank: int) -> None:
    assert energy_rank(values, threshold) == rank
    assert energy_rank(np.array(values)[::-1], threshold) == rank
    assert energy_rank(torch.tensor(values, dtype=torch.float64), threshold) == rank


@pytest.mark.parametrize("threshold", [0, -0.1, 1.5, math.nan, math.inf])
def test_energy_rank_refuses_threshold(threshold: float) -> None:
    with pytest.raises(ValueError, match="threshold must be in"):
        energy_rank([3, 1], threshold)


@pytest.mark.parametrize("values", [[3, -1], [-1, -2], [3, math.nan], [math.inf, 1], [[3, 1]]])
def test_energy_rank_refuses_values(values: Sequence[float]) -> None:
    with pytest.raises(ValueError, match="squared singular values must"):
        energy_rank(values, 0.5)


@law
@given(st.lists(st.integers(0, 1000), min_size=1, max_size=30), st.integers(1, 1000))
def test_energy_rank_is_the_first_index_that_reaches(values: list[int], thousandths: int) -> None:
    assume(any(values))
    sums = list(accumulate(sorted(values, reverse=True)))
    first = next(k for k, held in enumerate(sums, 1) if Fraction(held, sums[-1]) >= Fraction(thousandths, 1000))
    assert energy_rank(values, thousandths / 1000) == first


@law
@given(
    st.lists(st.floats(0, 1e9), max_size=30),
    st.floats(0, 1, exclude_min=True),
    st.floats(0, 1, exclude_min=True),
)
def test_energy_rank_is_monotone(values: list[float], one: float, other: float) -> None:
    low, high = sorted([one, other])
    assert energy_rank(values, low) <= energy_rank(values, high) <= energy_rank(values, 1)


def test_effective_rank() -> None:
    assert effective_rank([2, 2, 2, 2]) == pytest.approx(4)
    assert effective_rank([7, 0, 0]) == pytest.approx(1)
    assert effective_rank(torch.tensor([3.0, 1.0])) == pytest.approx(4 / 3**0.75)  # (4/3)^(3/4) * 4^(1/4)
    assert effective_rank([0, 0]) == 0
    assert effective_rank([]) == 0


# Spectra --------------------------------------------------------------------------------------------------------------


def test_spectrum_by_hand() -> None:
    values, vectors = spectrum(torch.tensor([[2.0, 1.0], [1.0, 2.0]]))  # 3 along (1, 1), 1 along (1, -1)
    assert values.tolist() == pytest.approx([3, 1])
    assert vectors[:, 0].tolist() == pytest.approx([math.sqrt(0.5), math.sqrt(0.5)])
    assert vectors.abs().flatten().tolist() == pytest.approx([math.sqrt(0.5)] * 4)


@law
@given(seeds, st.integers(1, 12), st.integers(1, 20))
def test_spectrum_is_that_of_the_rows(seed: int, d: int, n: int) -> None:
    rows = normal(seed, n, d)
    values, vectors = spectrum(rows.T @ rows)
    expected = torch.zeros(d, dtype=torch.float64)
    expected[: min(n, d)] = torch.linalg.svdvals(rows).square()
    assert largest(values - expected) < 1e-10
    assert largest(vectors * values @ vectors.T - rows.T @ rows) < 1e-10
    assert defect(vectors) < 1e-10
    assert bool((values >= 0).all())
    assert bool((values.diff() <= 0).all())
    assert bool((vectors.gather(0, vectors.abs().argmax(0, keepdim=True)) > 0).all())
    assert leading(rows.T @ rows, 1).shape == (d, min(n, d))


def test_spectrum_of_nothing() -> None:
    values, vectors = spectrum(torch.zeros(0, 0))
    assert values.shape == (0,)
    assert vectors.shape == (0, 0)
    assert leading(torch.zeros(0, 0), 0.9).shape == (0, 0)


def test_spectrum_refuses() -> None:
    for gram, message in [
        (torch.ones(2, 3), "square"),
        (torch.ones(2), "columns"),
        (torch.tensor([[1.0, 2.0], [3.0, 4.0]]), "symmetric"),
        (torch.full((2, 2), math.nan), "finite"),
    ]:
        with pytest.raises(ValueError, match=message):
            spectrum(gram)


def test_leading_takes_the_fewest_directions() -> None:
    gram = torch.diag(torch.tensor([1.0, 9.0, 4.0, 2.0]))  # shares 9/16, 13/16, 15/16, 1
    assert torch.equal(leading(gram, 9 / 16), axes(4, 1))
    assert torch.equal(leading(gram, 13 / 16), axes(4, 1, 2))
    assert torch.equal(leading(gram, 0.82), axes(4, 1, 2, 3))
    assert leading(torch.zeros(4, 4), 0.9).shape == (4, 0)


# Merge and complement -------------------------------------------------------------------------------------------------


def test_merge_by_hand() -> None:
    empty = torch.zeros(3, 0)
    assert torch.equal(merge(empty, empty), torch.zeros(3, 0, dtype=torch.float64))
    assert torch.equal(merge(empty, 5 * axes(3, 2, 0)), axes(3, 2, 0))
    assert torch.equal(merge(axes(3, 0), empty), axes(3, 0))
    leaning = torch.tensor([[7.0], [0.0], [2.0]])  # only its part outside the first axis is new
    assert torch.allclose(merge(axes(3, 0), leaning), axes(3, 0, 2), atol=1e-15)


def test_merge_drops_what_is_not_new() -> None:
    basis = basis_of(0, 8, 3)
    inside = basis @ normal(1, 3, 5)
    assert torch.equal(merge(basis, inside), basis)
    assert torch.equal(merge(basis, torch.zeros(8, 2)), basis)
    outside = normal(2, 8, 1)
    repeated = torch.cat([outside, inside, -3 * outside, 1e-200 * outside, 1e200 * outside], dim=1)
    assert merge(basis, repeated).shape == (8, 4)
    assert merge(basis, normal(3, 8, 20)).shape == (8, 8)
    assert merge(basis.float(), inside.float()).shape == (8, 3)  # equal to within float32's precision


def test_merge_takes_a_basis_that_is_not_orthonormal() -> None:
    skewed = torch.tensor([[1.0, 1.0, 2.0], [0.0, 1.0, 1.0], [0.0, 0.0, 0.0]])  # rank 2
    merged = merge(skewed, axes(3, 0))
    assert merged.shape == (3, 2)
    assert defect(merged) < 1e-14
    assert largest(projector(merged) - projector(axes(3, 0, 1))) < 1e-14


def test_merge_refuses() -> None:
    with pytest.raises(ValueError, match="differ in length"):
        merge(axes(3, 0), axes(4, 0))
    with pytest.raises(ValueError, match="not finite"):
        merge(axes(3, 0), torch.full((3, 1), math.nan))
    with pytest.raises(ValueError, match="directions as columns"):
        merge(axes(3, 0), torch.ones(3))


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("closeness", [1e-13, 1e-11, 1e-9, 1e-6, 1e-3])
def test_orthonormal_after_fifty_merges(seed: int, closeness: float) -> None:
    d = 120
    basis = torch.zeros(d, 0, dtype=torch.float64)
    for step in range(50):
        fresh = normal(1000 * seed + step, d, 2)
        near = basis @ normal(step, basis.shape[1], 2) + closeness * fresh  # almost inside what is there already
        merged = merge(basis, torch.cat([fresh[:, :1], near, fresh[:, :1] + closeness * fresh[:, 1:]], dim=1))
        assert torch.equal(merged[:, : basis.shape[1]], basis)
        basis = merged
    assert 50 <= basis.shape[1] <= d
    assert defect(basis) < 1e-10


@law
@given(seeds, st.integers(1, 10), st.integers(0, 10), st.integers(0, 12))
def test_merge_spans_both(seed: int, d: int, k: int, n: int) -> None:
    basis, new = basis_of(seed, d, min(k, d)), normal(seed + 1, d, n)
    merged = merge(basis, new)
    assert merged.dtype == torch.float64
    assert merged.shape == (d, min(d, basis.shape[1] + n))
    assert defect(merged) < 1e-12
    assert torch.equal(merged[:, : basis.shape[1]], basis)
    assert largest(new - project(new.T, merged).T) < 1e-10
    rest = complement(merged)
    assert rest.shape == (d, d - merged.shape[1])
    assert largest(projector(rest) + projector(merged) - torch.eye(d, dtype=torch.float64)) < 1e-12


def test_complement_by_hand() -> None:
    assert torch.equal(complement(torch.zeros(3, 0)), axes(3, 0, 1, 2))
    assert complement(axes(3, 0, 1, 2)).shape == (3, 0)
    assert torch.equal(complement(axes(3, 0, 2)).abs(), axes(3, 1))


# Residual -------------------------------------------------------------------------------------------------------------


@law
@given(seeds, st.integers(1, 10), st.integers(0, 10), st.integers(1, 20))
def test_residual_is_the_gram_of_the_projected_rows(seed: int, d: int, k: int, n: int) -> None:
    rows, basis = normal(seed, n, d), basis_of(seed + 1, d, min(k, d))
    outside = rows - project(rows, basis)
    assert largest(residual(rows.T @ rows, basis) - outside.T @ outside) < 1e-10


def test_residual_of_what_is_inside_has_no_rank() -> None:
    basis = basis_of(0, 16, 4)
    rows = normal(1, 50, 4) @ basis.T
    assert largest(residual(rows.T @ rows, basis)) == 0
    weak = 1e-5 * normal(2, 50, 2) @ complement(basis).T[:2]  # energy 1e-10 of the whole, next to its round-off
    both = rows + weak
    assert leading(residual(both.T @ both, basis), 1).shape == (16, 2)


# Allowed basis --------------------------------------------------------------------------------------------------------


def test_allowed_basis_by_hand() -> None:
    # Inside the plane of axes 0 and 1, and orthogonal to (1, 0, 1): axis 1 alone.
    slanted = torch.tensor([[1.0], [0.0], [1.0]])
    allowed = allowed_basis(axes(3, 0, 1), slanted)
    assert torch.allclose(allowed.abs(), axes(3, 1), atol=1e-15)


def test_multiplying_the_projectors_is_not_the_intersection() -> None:
    inside, taken = axes(3, 0, 1), torch.tensor([[1.0], [0.0], [1.0]], dtype=torch.float64) / math.sqrt(2)
    right = projector(allowed_basis(inside, taken))
    product = projector(inside) @ (torch.eye(3, dtype=torch.float64) - projector(taken))
    move = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)
    assert largest(right @ move) < 1e-15  # nothing of axis 0 is allowed
    assert (product @ move).tolist() == pytest.approx([0.5, 0, 0])  # the product lets half of it through,
    assert float(taken.T @ product @ move) == pytest.approx(0.5 / math.sqrt(2))  # onto the occupied direction
    assert largest(product @ product - product) > 0.2  # and is no projector at all


def test_allowed_basis_of_empty_spaces() -> None:
    basis, empty = basis_of(0, 6, 3), torch.zeros(6, 0)
    assert torch.equal(allowed_basis(basis, empty), basis)
    assert allowed_basis(empty, basis).shape == (6, 0)
    assert allowed_basis(empty, empty).shape == (6, 0)
    assert allowed_basis(basis, basis).shape == (6, 0)
    assert allowed_basis(basis, torch.eye(6)).shape == (6, 0)
    with pytest.raises(ValueError, match="differ in length"):
        allowed_basis(basis, torch.zeros(5, 0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_allowed_basis_sees_through_the_precision_of_its_input(dtype: torch.dtype) -> None:
    everything = basis_of(0, 40, 40)
    inside, taken = everything[:, :20], torch.cat([everything[:, :5], everything[:, 20:30]], dim=1)
    allowed = allowed_basis(inside.to(dtype), taken.to(dtype))
    assert allowed.dtype == torch.float64
    assert allowed.shape == (40, 15)
    assert largest(projector(allowed) - projector(everything[:, 5:20])) < 10 * torch.finfo(dtype).eps


@law
@given(seeds, st.integers(1, 12), st.integers(0, 12), st.integers(0, 12), st.integers(0, 12))
def test_allowed_basis_is_the_intersection(seed: int, d: int, v: int, shared: int, others: int) -> None:
    inside = basis_of(seed, d, min(v, d))
    shared = min(shared, inside.shape[1])
    mixture = inside @ normal(seed + 1, inside.shape[1], shared)
    taken = merge(mixture, normal(seed + 2, d, others))
    allowed = allowed_basis(inside, taken)
    # Generic occupied directions each take one direction of V, until none is left.
    assert allowed.shape == (d, max(0, inside.shape[1] - taken.shape[1]))
    assert defect(allowed) < 1e-12
    assert largest(taken.T @ allowed) < 1e-10
    assert largest(allowed - project(allowed.T, inside).T) < 1e-12


# Overlap and projection -----------------------------------------------------------------------------------------------


def test_overlap() -> None:
    assert overlap(axes(4, 0, 1), axes(4, 0)) == pytest.approx(1)
    assert overlap(axes(4, 0, 1), axes(4, 2, 3)) == pytest.approx(0)
    assert overlap(axes(4, 0, 1), axes(4, 1, 2, 3)) == pytest.approx(0.5)  # one direction shared, of two
    assert overlap(axes(4, 0), torch.zeros(4, 0)) is None


@law
@given(seeds, st.integers(1, 10), st.integers(0, 10))
def test_project_is_a_projection(seed: int, d: int, k: int) -> None:
    rows, basis = normal(seed, 2, 3, d).float(), basis_of(seed + 1, d, min(k, d))
    once = project(rows, basis)
    assert once.dtype == torch.float64
    assert once.shape == rows.shape
    assert largest(project(once, basis) - once) < 1e-12
    assert largest((rows.double() - once) @ basis) < 1e-12
