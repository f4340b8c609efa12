"""Comparison of a kernel with networks of increasing width."""

import functools
import inspect
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import neural_tangents as nt
import numpy as np
import tqdm
from jax.typing import ArrayLike

from nt_residual import _checks, conv, memory, rntk
from nt_residual.finite_width.convolutional import ConvResNet
from nt_residual.finite_width.empirical_ntk import empirical_ntk
from nt_residual.finite_width.fully_connected import ResNet
from nt_residual.finite_width.networks import Network, initializer
from nt_residual.finite_width.width_results import WidthSweep

Kind = Literal["ntk", "nngp"]


def width_sweep(
    kernel: Any,
    x: ArrayLike,
    widths: Sequence[int],
    n_seeds: int | Sequence[int],
    *,
    network: Callable[[int], Any] | None = None,
    kind: Kind | None = None,
    seed: int = 0,
    progress: bool = False,
) -> WidthSweep:
    """Compare a kernel with the empirical kernels of networks of several widths.

    In theory the error of one network falls like 1/√width, and that of the mean over networks
    like 1/width. This holds for widths well above S = Σ α²/(1 + α²): the squared error is about
    exp(c S/width) − 1 with c of 2 to 3.

    A wrong kernel shows as a `bias` of many standard errors: a few dozen networks reveal a
    deviation of 5%. See `WidthSweep.agrees`.

    Empirical kernels are means over outputs. By default a network has one output for the NTK, and
    as many as its width for the NNGP, whose mean over few outputs would not converge.

    Args:
      kernel: an `rntk.ResidualKernel` or `conv.ResidualKernel` of finite depth; or, with
        `network`, a function `kernel(x)`, or `kernel(x, None, kind)` if it has an argument `get`.
      x: a few inputs, shape (n, features) or (n, height, width, channels), floats.
      widths: at least two, increasing. For images, the channels.
      n_seeds: the number of networks of each width, at least 2; or one number for each width.
      network: a function of the width that returns a function of `rngs=` that makes an
        `nnx.Module`, a linen module, or what `stax` returns; `None` for that of a residual kernel.
      kind: 'ntk' or 'nngp'; `None` for that of the kernel, or 'ntk'.
      seed: of all weights.
      progress: whether to show a progress bar.

    Raises:
      FloatingPointError: if the empirical kernel of a network is not finite.
      MemoryError: if a width does not fit, before it is allocated.
      TypeError: if an argument has the wrong type.
      ValueError: if `widths` do not increase, the kernel has no known network or does not fit
        `x`, or a network is invalid for `train`.

    Example:
      >>> from nt_residual import schedules
      >>> kernel = rntk.ResidualKernel(1, schedules.PowerLaw(0.5))
      >>> sweep = width_sweep(kernel, np.eye(2, dtype="float32"), [8, 64], n_seeds=40)
      >>> bool(sweep.error[1] < sweep.error[0] / 2)
      True
    """
    widths = _check_widths(widths)
    counts = _check_counts(n_seeds, len(widths))
    key = jax.random.key(_checks.integer(seed, "seed", 0))
    _checks.boolean(progress, "progress")
    kind = _kind(kernel, kind)
    x = jnp.asarray(_checks.finite_batch(x, "x"))
    network = _network_of(kernel, kind, x) if network is None else network
    draws = []
    # Accelerators multiply matrices in less than float32 by default.
    with (
        jax.default_matmul_precision("highest"),
        tqdm.tqdm(total=sum(counts), unit="network", disable=not progress) as bar,
    ):
        expected = _expected(kernel, kind, x)
        for width, count in zip(widths, counts, strict=True):
            bar.set_description(f"width {width}")
            make = initializer(network(width), x, check=width == widths[0])
            draw = _compiled(make, x, kind, width)
            kernels = np.empty((count, len(x), len(x)))
            for i in range(count):
                kernels[i] = draw(jax.random.fold_in(jax.random.fold_in(key, width), i))
                bar.update()
            if not np.all(np.isfinite(kernels)):
                raise FloatingPointError(
                    f"the empirical kernel of a network of width {width} must be finite, got NaN "
                    "or infinity. Deep networks need normalize_blocks=True or smaller α."
                )
            draws.append(kernels)
    return WidthSweep(np.array(widths), expected, tuple(draws))


def _compiled(
    make: Callable[[jax.Array], Network], x: jax.Array, kind: Kind, width: int
) -> Callable[[jax.Array], jax.Array]:
    """The compiled function of a random key to the empirical kernel of a new network."""

    def draw(key):
        net: Any = make(key)
        if kind == "nngp":
            return nt.empirical_nngp_fn(net, trace_axes=(-1,))(x, None, net.params)
        return empirical_ntk(net, net.params, x)

    program = jax.jit(draw).lower(jax.random.key(0)).compile()
    reserved = program.memory_analysis()
    if reserved is not None:
        need = {f"a network of width {width} and its gradients": reserved.temp_size_in_bytes}
        memory.check(need, *memory.share(jax.devices()[:1]), "Choose smaller widths.")
    return program


def _network_of(kernel: Any, kind: Kind, x: jax.Array) -> Callable[[int], Any]:
    """The network of a residual kernel, by width."""
    if not isinstance(kernel, rntk.ResidualKernel | conv.ResidualKernel):
        raise ValueError(
            "network must be given unless kernel is an rntk.ResidualKernel or a "
            f"conv.ResidualKernel, got {type(kernel).__name__}. Pass network=lambda width: …."
        )
    if kernel.depth == math.inf:
        raise ValueError(
            "kernel must be of finite depth to have a network, got depth=inf. Pass "
            "kernel.at_depth(100), for example."
        )
    options = {name: getattr(kernel, name) for name in ("depth", "schedule", "trained")}
    options["normalize_blocks"] = kernel.normalize
    options["dtype"] = jnp.promote_types(x.dtype, jnp.float32)
    if isinstance(kernel, rntk.ResidualKernel):
        make, size, options["in_dim"] = ResNet, "width", x.shape[-1]
    else:
        make, size, options["in_channels"] = ConvResNet, "channels", x.shape[-1]
        for name in ("pooling", "block", "filter_shape", "padding", "image_shape"):
            options[name] = getattr(kernel, name)

    def network(width: int) -> Callable:
        sizes = {size: width, "out_dim": width if kind == "nngp" else 1}
        return functools.partial(make, **options, **sizes)

    return network


def _expected(kernel: Any, kind: Kind, x: jax.Array) -> np.ndarray:
    """The kernel in the units of networks, float64."""
    try:
        has_get = "get" in inspect.signature(kernel).parameters
    except ValueError:  # Some functions that are not written in Python have no signature.
        has_get = False
    values = np.asarray(kernel(x, None, kind) if has_get else kernel(x), np.float64)
    if values.shape != (len(x), len(x)) or not np.all(np.isfinite(values)) or not values.any():
        raise ValueError(
            f"kernel must give a finite matrix that is not zero, of shape {(len(x), len(x))} for "
            f"{len(x)} inputs, got {values.dtype} of shape {values.shape}."
        )
    if isinstance(kernel, rntk.ResidualKernel):
        # Networks divide by the number of features. A normalized kernel has |x|² on its diagonal,
        # networks with normalized blocks a value that grows with the number of trained layers.
        log_scale = kernel.log_diagonal - kernel.effective_time if kernel.normalize else 0.0
        return values * math.exp(log_scale) / x.shape[-1]
    if isinstance(kernel, conv.ResidualKernel) and kind == "ntk" and kernel.normalize:
        return values * kernel.ntk_scale
    return values


def _kind(kernel: Any, kind: Any) -> Kind:
    if not callable(kernel):
        found = type(kernel).__name__
        raise TypeError(f"kernel must be a residual kernel or a function of inputs, got {found}.")
    own: Any = getattr(kernel, "kind", None) or getattr(kernel, "get", None)
    if kind is None:
        return own or "ntk"
    _checks.choice(kind, "kind", ("ntk", "nngp"))
    if own and own != kind:
        raise ValueError(f"kind must be that of the kernel, {own!r}, got {kind!r}. Leave it out.")
    return kind


def _check_widths(widths: Sequence[int]) -> list[int]:
    found = [_checks.integer(width, "widths", 1, "Pass whole numbers.") for width in widths]
    if len(found) < 2 or any(b <= a for a, b in itertools.pairwise(found)):
        raise ValueError(
            f"widths must be at least two that increase, for a slope, got {found}. Pass "
            "[64, 128, 256], for example."
        )
    return found


def _check_counts(n_seeds: Any, widths: int) -> list[int]:
    several = isinstance(n_seeds, Sequence | np.ndarray) and not isinstance(n_seeds, str)
    given = list(n_seeds) if several else [n_seeds] * widths
    if len(given) != widths:
        raise ValueError(
            f"n_seeds must be one number of networks for each of {widths} widths, got {len(given)}."
        )
    remedy = "One network gives no standard error: pass 30, for example."
    return [_checks.integer(count, "n_seeds", 2, remedy) for count in given]
