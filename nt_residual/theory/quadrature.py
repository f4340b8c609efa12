"""Integrals of a zonal kernel against the zonal polynomials, over the angle.

Kernels of residual networks are analytic in the angle, and vary on the scale of 3π/T near θ = 0
where T is large, of √T near θ = π where it is small. Panels of Gauss-Legendre nodes halve toward
both ends, and once more where halving changes the result.
"""

import math
from collections.abc import Callable

import numpy as np

from nt_residual.theory import harmonics

Profile = Callable[[np.ndarray], np.ndarray]

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(24)
# Nodes per panel resolve a phase of this many radians to rounding.
_PHASE = 12.0
# What a panel may still change by, in units of r(0).
_TOLERANCE = 1e-14
_MAX_NODES = 60_000
# A kink or a jump of the kernel is in one panel, noise in many.
_FEW_PANELS = 8
# Parts of the integral below exp(−46) = 1e-20 are left out.
_NEGLIGIBLE = -46.0


def project(
    profile: Profile, dim: int, max_degree: int, scale: float
) -> tuple[np.ndarray, np.ndarray]:
    """Integrate a kernel r with r(0) = `scale` against the zonal polynomials up to a degree.

        ∫ r q_k √w dθ = √N λ_k

    and estimate the absolute error, both of shape (max_degree + 1,). The error is the change when
    panels were halved, and at least the rounding of the terms. Smooth errors of r do not show.
    """
    panels = _first_panels(dim, max_degree)
    coarse, _ = _integrate(profile, panels, dim, max_degree)
    value, error = np.zeros(max_degree + 1), np.zeros(max_degree + 1)
    used, change_before = 0, math.inf
    while True:
        halves = _halve(panels)
        fine, rounding = _integrate(profile, halves, dim, max_degree)
        used += fine.shape[0] * _NODES.size
        both = fine[0::2] + fine[1::2]
        change = np.abs(coarse - both)
        rough = change.max(axis=1) > _TOLERANCE * scale
        change_now = float(change[rough].sum())
        # A change in many panels that halving does not reduce is noise in the kernel's values.
        is_noise = change_now > change_before / 1.5 and rough.sum() > _FEW_PANELS
        if is_noise or not rough.any() or used + 4 * rough.sum() * _NODES.size > _MAX_NODES:
            rough[:] = False
        value += both[~rough].sum(axis=0)
        error += (change + rounding[0::2] + rounding[1::2])[~rough].sum(axis=0)
        if not rough.any():
            return value, error
        change_before = change_now
        kept = np.repeat(rough, 2)
        panels, coarse = halves[kept], fine[kept]


def _first_panels(dim: int, max_degree: int) -> np.ndarray:
    """Panels that follow the oscillation of q_k², halving toward both ends; shape (p, 2)."""
    log_root = math.log(harmonics.multiplicity(dim, max_degree)) / 2
    frequency = math.sqrt(max_degree * (max_degree + dim - 2)) + math.sqrt(dim) + 4
    start = _first_angle(dim, log_root)
    width = _PHASE / frequency
    if start < width:
        start = 0.0
    count = max(4, math.ceil((math.pi - 2 * start) / width))
    edges = np.linspace(start, math.pi - start, count + 1)
    if start == 0:
        graded = edges[1] * 2.0 ** -np.arange(1, _levels(edges[1], dim, log_root) + 1)
        # Rounding of π − θ there would be that of the angle, not of its distance to π.
        edges = np.sort(np.concatenate([edges, graded, math.pi - graded]))
    return np.stack([edges[:-1], edges[1:]], axis=1)


def _first_angle(dim: int, log_root: float) -> float:
    """Below this angle the weight times the largest polynomial is negligible."""
    if dim == 2:
        return 0.0
    log_peak = float(harmonics.log_weight(np.array(math.pi / 2), dim))
    log_sine = (_NEGLIGIBLE - log_root - log_peak) / (dim - 2)
    return math.asin(min(1.0, math.exp(log_sine)))


def _levels(width: float, dim: int, log_root: float) -> int:
    """Return how often to halve the first panel, until the rest of it is negligible."""
    log_width = (_NEGLIGIBLE - log_root) / (dim - 1)
    return min(50, max(0, math.ceil((math.log(width) - log_width) / math.log(2))))


def _halve(panels: np.ndarray) -> np.ndarray:
    left, right = panels.T
    middle = (left + right) / 2
    return np.stack([left, middle, middle, right], axis=1).reshape(-1, 2)


def _integrate(
    profile: Profile, panels: np.ndarray, dim: int, max_degree: int
) -> tuple[np.ndarray, np.ndarray]:
    """The integral over each panel, and the rounding in it, both of shape (p, degrees)."""
    half = (panels[:, 1:] - panels[:, :1]) / 2
    theta = (panels[:, :1] + panels[:, 1:]) / 2 + half * _NODES
    values = profile(theta.ravel())
    q = harmonics.weighted_polynomials(theta.ravel(), dim, max_degree)
    terms = (q * (values * q[0] * (half * _WEIGHTS).ravel())).reshape(-1, *theta.shape)
    rounding = np.finfo(np.float64).eps * np.abs(terms).sum(axis=-1)
    return terms.sum(axis=-1).T, rounding.T
