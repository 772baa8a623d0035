"""Subspaces of a layer's input: spectra of Gram statistics, energy ranks, and bases that grow, intersect and project.

Rows are samples: for features X [N, d] the statistics are the Gram matrix A = X^T X [d, d], accumulated in float64, so
that nothing is ever decomposed at size N. A subspace is an orthonormal basis, a [d, k] tensor whose columns are
directions; k may be 0. Energy is always on squared singular values.

Every function takes any float dtype and computes and returns float64. A basis that is not orthonormal to float64's
precision (a float32 one, say) is made so first; `project` alone trusts its basis, because it runs at every step.

Source: GPM (Saha et al. 2021, "Gradient Projection Memory for Continual Learning"), except where a docstring says
"reconstruction".
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

EPS = torch.finfo(torch.float64).eps
NEGLIGIBLE = 1e-10  # the sine of an angle, or a cosine, that counts as zero between float64 directions
ORTHONORMAL = 1e-12  # the largest entry of C^T C - I in a basis that is kept as it is


def energy_rank(squared_singular_values: Tensor | np.ndarray | Sequence[float], threshold: float) -> int:
    """The smallest k whose k largest values hold at least `threshold` of the sum: the first index that REACHES it.

    squared_singular_values [n], in any order; 0 < threshold <= 1. A share that falls short by round-off alone reaches.
    Threshold 1 is the full numerical rank, the number of values above max * n * eps of float64, and no smaller
    threshold exceeds it. The rank of nothing (no values, or all zero) is 0.

    Raises ValueError for a threshold outside (0, 1] and for values that are not finite or negative beyond round-off.
    Source: the criterion of GPM (its public code returns one less).
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold must be in (0, 1], got {threshold}")
    shares = _shares(squared_singular_values).sort(descending=True).values
    if len(shares) == 0:
        return 0
    full_rank = int((shares > shares[0] * len(shares) * EPS).sum())
    if threshold == 1:
        return full_rank
    cumulative = shares.cumsum(0)
    round_off = (len(shares) + 4) * EPS  # of the sums, of the shares and of the threshold itself
    short = cumulative < threshold * cumulative[-1] * (1 - round_off)
    return min(int(short.sum()) + 1, full_rank)


def effective_rank(squared_singular_values: Tensor | np.ndarray | Sequence[float]) -> float:
    """exp of the entropy of the normalised spectrum: n for n equal values, 1 for a single one, 0 for nothing.

    squared_singular_values [n], in any order. Raises ValueError as `energy_rank` does.
    Source: Roy & Vetterli 2007, who normalise singular values; taking the squared ones is a reconstruction.
    """
    shares = _shares(squared_singular_values)
    return float(torch.special.entr(shares).sum().exp()) if len(shares) else 0.0


def spectrum(gram: Tensor) -> tuple[Tensor, Tensor]:
    """Squared singular values of X [d], descending, and its right singular vectors [d, d] as columns, from A = X^T X.

    Values are clamped at 0. Of the two signs of a vector, the one that makes its largest-magnitude entry positive.
    One decomposition serves every threshold. Raises ValueError unless gram is a finite symmetric [d, d] matrix.
    """
    values, vectors = torch.linalg.eigh(_gram(gram))
    if len(values) == 0:  # the statistics inside an empty subspace
        return values, vectors
    vectors = vectors.flip(1)
    largest = vectors.gather(0, vectors.abs().argmax(0, keepdim=True))
    return values.flip(0).clamp(min=0), torch.where(largest < 0, -vectors, vectors)


def leading(gram: Tensor, threshold: float) -> Tensor:
    """The fewest right singular vectors that hold `threshold` of the energy: [d, k], k = energy_rank."""
    values, vectors = spectrum(gram)
    directions: Tensor = vectors[:, : energy_rank(values, threshold)].clone()
    return directions


def merge(basis: Tensor, new: Tensor) -> Tensor:
    """Orthonormal basis of the span of both: basis [d, k], new [d, n] -> [d, k + m], m <= n and k + m <= d.

    The columns of basis come first, unchanged. New columns need be neither orthonormal nor independent, and their
    lengths do not matter: only what is left of their directions outside basis counts, and where that is negligible they
    add nothing. QR with two rounds of re-orthogonalisation, so that C^T C = I holds however often a basis is grown.

    Raises ValueError where the shapes do not fit or an entry is not finite. Source: the memory update of GPM.
    """
    negligible = _negligible(basis, new)
    kept, columns = _basis(basis, "basis"), _columns(new, "new")
    _same_width(kept, columns)
    columns = columns[:, columns.any(0)]
    if columns.shape[1] == 0:
        return kept.clone()
    columns = columns / columns.abs().amax(0)  # first to a size whose square cannot overflow or vanish
    columns = columns / columns.norm(dim=0)
    fresh = _span(_outside(columns, kept), negligible)[:, : kept.shape[0] - kept.shape[1]]
    for _ in range(2):
        fresh = _qr(_outside(fresh, kept))
    return torch.cat([kept, fresh], dim=1)


def complement(basis: Tensor) -> Tensor:
    """Orthonormal basis [d, d - k] of everything orthogonal to basis [d, k]."""
    columns = _basis(basis, "basis")
    if columns.shape[1] == 0:
        return torch.eye(columns.shape[0], dtype=torch.float64, device=columns.device)
    everything: Tensor = torch.linalg.qr(columns, mode="complete").Q
    return everything[:, columns.shape[1] :].clone()


def residual(gram: Tensor, basis: Tensor) -> Tensor:
    """The statistics outside a subspace: (I - C C^T) A (I - C C^T) for gram A [d, d] and basis C [d, k] -> [d, d].

    Energy below the round-off of A is set to zero, so that a later rank does not count it as a direction.
    Source: GPM, which removes the same part from its features.
    """
    statistics, columns = _gram(gram), _basis(basis, "basis")
    _same_width(statistics, columns)
    if columns.shape[1] == 0:
        return statistics
    left_over = _outside(_outside(statistics, columns).T, columns)
    values, vectors = spectrum((left_over + left_over.T) / 2)
    values = torch.where(values > len(values) * EPS * statistics.norm(), values, 0.0)
    cleaned = vectors * values @ vectors.T
    return (cleaned + cleaned.T) / 2


def allowed_basis(pretrained: Tensor, occupied: Tensor) -> Tensor:
    """Intersection of span(V) with the complement of span(C), as V null(C^T V): orthonormal [d, k], k may be 0.

    pretrained V [d, v] and occupied C [d, c]. Multiplying the two projectors instead does not give the intersection,
    because they do not commute. The singular values of C^T V are the cosines between the two spaces: a direction of V
    belongs to the intersection where its cosine is zero to within round-off.

    Raises ValueError where the shapes do not fit. Reconstruction of the "both" mode of Fwd-Prompt (Zheng et al. 2024).
    """
    negligible = _negligible(pretrained, occupied)
    inside, taken = _basis(pretrained, "pretrained"), _basis(occupied, "occupied")
    _same_width(inside, taken)
    if inside.shape[1] == 0 or taken.shape[1] == 0:
        return inside.clone()
    _, cosines, directions = torch.linalg.svd(taken.T @ inside, full_matrices=True)
    intersection: Tensor = inside @ directions[int((cosines > negligible).sum()) :].T
    return intersection


def overlap(first: Tensor, second: Tensor) -> float | None:
    """||V^T W||_F^2 / min(v, w) for bases V [d, v] and W [d, w]: 1 where one holds the other, 0 where orthogonal.

    None where either is empty: nothing can be shared with nothing. Reconstruction: an analysis quantity.
    """
    one, other = _basis(first, "first"), _basis(second, "second")
    _same_width(one, other)
    smaller = min(one.shape[1], other.shape[1])
    return float((one.T @ other).square().sum() / smaller) if smaller else None


def project(rows: Tensor, basis: Tensor) -> Tensor:
    """Rows [..., d] onto the span of basis B [d, k]: rows B B^T, float64. B must be orthonormal; it is not checked."""
    columns = basis.to(torch.float64)
    return rows.to(torch.float64) @ columns @ columns.T


def _shares(squared_singular_values: Tensor | np.ndarray | Sequence[float]) -> Tensor:
    """The spectrum [n] divided by its sum, negative round-off clamped at 0; empty where there is no energy at all."""
    if isinstance(squared_singular_values, Tensor):
        given = squared_singular_values.detach()
    else:
        given = torch.from_numpy(np.array(squared_singular_values, dtype=np.float64, order="C"))
    values = given.to(torch.float64)
    if values.dim() != 1:
        raise ValueError(f"squared singular values must be a vector, got shape {list(values.shape)}")
    if not values.isfinite().all():
        raise ValueError("squared singular values must be finite")
    if not values.any():
        return values[:0]
    precision = torch.finfo(given.dtype).eps if given.is_floating_point() else EPS
    scaled = values / values.abs().max()
    if scaled.min() < -min(10 * len(values) * precision, 1e-3):
        raise ValueError(f"squared singular values must not be negative, got {float(values.min())}")
    scaled = scaled.clamp(min=0)
    return scaled / scaled.sum()


def _columns(tensor: Tensor, name: str) -> Tensor:
    if tensor.dim() != 2:
        raise ValueError(f"{name} must be [d, k] with directions as columns, got shape {list(tensor.shape)}")
    columns = tensor.detach().to(torch.float64)
    if not columns.isfinite().all():
        raise ValueError(f"{name} has entries that are not finite")
    return columns


def _basis(tensor: Tensor, name: str) -> Tensor:
    """[d, k] float64, orthonormal: as it came where it is so already, otherwise an orthonormal basis of its span."""
    columns = _columns(tensor, name)
    identity = torch.eye(columns.shape[1], dtype=torch.float64, device=columns.device)
    if torch.allclose(columns.T @ columns, identity, rtol=0, atol=ORTHONORMAL):
        return columns
    return merge(tensor[:, :0], tensor)


def _gram(gram: Tensor) -> Tensor:
    statistics = _columns(gram, "gram")
    if statistics.shape[0] != statistics.shape[1]:
        raise ValueError(f"gram must be a square [d, d] matrix, got shape {list(gram.shape)}")
    if statistics.numel() and (statistics - statistics.T).abs().max() > 1e-6 * statistics.abs().max():
        raise ValueError("gram must be symmetric: give X^T X, not X")
    return (statistics + statistics.T) / 2


def _same_width(first: Tensor, second: Tensor) -> None:
    if first.shape[0] != second.shape[0]:
        raise ValueError(f"directions differ in length: {first.shape[0]} and {second.shape[0]}")


def _negligible(*tensors: Tensor) -> float:
    """How small a sine or cosine must be to count as zero, given the precision the directions came in."""
    coarsest = max((torch.finfo(tensor.dtype).eps for tensor in tensors if tensor.is_floating_point()), default=EPS)
    return max(NEGLIGIBLE, 8 * coarsest)


def _outside(columns: Tensor, basis: Tensor) -> Tensor:
    """Columns [d, n] less their part inside basis [d, k]."""
    return columns - basis @ (basis.T @ columns)


def _qr(columns: Tensor) -> Tensor:
    """Orthonormal columns that span the given independent ones; already orthonormal ones come back as they are."""
    orthonormal, triangle = torch.linalg.qr(columns)
    return torch.where(triangle.diagonal() < 0, -orthonormal, orthonormal)


def _span(columns: Tensor, negligible: float) -> Tensor:
    """Orthonormal basis of the columns' span: by QR, in their order, or by SVD where some depend on the others."""
    if columns.shape[1] <= columns.shape[0]:
        triangle = torch.linalg.qr(columns, mode="r").R
        if bool((triangle.diagonal().abs() > negligible).all()):
            return _qr(columns)
    left: Tensor
    left, sizes, _ = torch.linalg.svd(columns, full_matrices=False)
    return left[:, sizes > negligible]
