"""The kernels of finite networks of several widths."""

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
from nt_residual.finite_width.empirical_ntk import empirical_ntk
from nt_residual.finite_width.models import ConvResNet, ResNet
from nt_residual.finite_width.networks import initializer
from nt_residual.finite_width.width_results import WidthSweep


def width_sweep(
    kernel: Any,
    x: ArrayLike,
    widths: Sequence[int],
    seeds: int | Sequence[int],
    *,
    network: Callable[[int], Any] | None = None,
    kind: Literal["ntk", "nngp"] | None = None,
    implementation: Any = nt.NtkImplementation.NTK_VECTOR_PRODUCTS,
    batch_size: int = 1,
    seed: int = 0,
    progress: bool = False,
) -> WidthSweep:
    """Compare a kernel with the empirical kernels of finite networks of several widths.

    In theory the distance of one network falls like 1/√width, and that of the mean over networks
    like 1/width. That is for widths well above S = Σ α²/(1 + α²): the squared distance is about
    exp(c S/width) − 1 with c of 2 to 3, so that with constant α and many blocks narrow networks
    are further off, and the slope is steeper.

    A kernel that is not that of the networks shows by its distance from what their mean tends to,
    see `WidthSweep.agrees`; 5% are seen with some dozens of networks.

    Networks are made, measured and let go of one by one. The NTK is that of one output, or the
    mean over outputs. So is the NNGP; as that of one output does not tend to anything,
    networks have as many outputs as their width then.

    Args:
      kernel: an `rntk.ResidualKernel` or `conv.ResidualKernel` of finite depth; or, with
        `network`, a function. One that has an argument `get`, as those of `stax` do, is called
        as `kernel(x, None, kind)`, others as `kernel(x)`.
      x: the inputs, shape (n, features) or (n, height, width, channels), floats. A few will do.
      widths: at least two, increasing. Of images, the channels.
      seeds: the number of networks of each width, at least 2; or one number for each. With 12
        networks of each of 64, 128, 256 and 512, of 40 blocks, the 95% interval of the slope is
        ± 0.13; four times as many halve it.
      network: a function of the width to a network: a function of `rngs=` that makes an
        `nnx.Module`, a linen module, or the tuple of functions of `stax`. `None` for the network
        of the residual kernel: `ResNet` or `ConvResNet`.
      kind: 'ntk' or 'nngp'; `None` for what the kernel says, and 'ntk' if it says nothing.
      implementation: an `NtkImplementation` of neural-tangents. The default holds as many
        gradients as `batch_size`; `JACOBIAN_CONTRACTION` those of all inputs besides;
        `STRUCTURED_DERIVATIVES` only activations if blocks are written one by one by `stax`
        layers, which takes minutes to compile for 40 blocks.
      batch_size: the number of rows of the NTK computed at once.
      seed: of all weights.
      progress: whether to show a progress bar.

    Raises:
      MemoryError: if a width does not fit. Nothing of it is allocated then.
      TypeError: if an argument is of the wrong type.
      ValueError: if `widths` do not increase, there is one seed, no network belongs to the kernel,
        or the kernel is not one of `x`; and what `initializer` raises.
      FloatingPointError: if the empirical kernel of a network is not finite.

    Example:
      >>> from nt_residual import schedules
      >>> kernel = rntk.ResidualKernel(1, schedules.PowerLaw(0.5))
      >>> sweep = width_sweep(kernel, np.eye(2, dtype="float32"), [8, 64], seeds=40)
      >>> bool(sweep.error[1] < sweep.error[0] / 2)
      True
    """
    widths, seeds = _check_widths(widths), _check_seeds(seeds, len(widths))
    batch_size = _checks.integer(batch_size, "batch_size", 1, "Pass 1, for example.")
    key = jax.random.key(_checks.integer(seed, "seed", 0))
    kind = _kind(kernel, kind)
    x = jnp.asarray(x)
    if not jnp.issubdtype(x.dtype, jnp.floating) or x.ndim < 2 or not x.size:
        raise ValueError(
            "x must hold floats, one input per row, of shape (n, features) or (n, height, width, "
            f"channels), got {x.dtype} of shape {x.shape}."
        )
    network = _network_of(kernel, kind, x) if network is None else network
    # On accelerators products would be less than float32, and networks off by that.
    with jax.default_matmul_precision("highest"):
        expected = _expected(kernel, kind, x)
        programs = _programs(network, x, widths, kind, implementation, batch_size)
        draws = []
        with tqdm.tqdm(total=sum(seeds), unit="network", disable=not progress) as bar:
            for width, count, program in zip(widths, seeds, programs, strict=True):
                bar.set_description(f"width {width}")
                found = []
                for i in range(count):
                    found.append(np.asarray(program(_key(key, width, i)), np.float64))
                    _check_finite(found[-1], width)
                    bar.update()
                draws.append(np.stack(found))
    return WidthSweep(np.array(widths), expected, tuple(draws))


def _programs(network, x, widths, kind, implementation, batch_size):
    """For each width a compiled function of a key to an empirical kernel, one after another."""
    outputs = []
    for width in widths:
        # The smallest stands for all, since the check has to make one.
        make = initializer(network(width), x, check=not outputs)

        def draw(key, make=make):
            made = make(key)
            outputs.append(jax.eval_shape(made, made.params, x).shape[-1])
            if kind == "nngp":
                return nt.empirical_nngp_fn(made, trace_axes=(-1,))(x, None, made.params)
            return empirical_ntk(
                made, made.params, x, implementation=implementation, batch_size=batch_size
            )

        program = jax.jit(draw).lower(jax.random.key(0)).compile()
        if kind == "nngp" and len(outputs) > 1 and outputs[-1] <= outputs[-2]:
            raise ValueError(
                f"network must have more outputs the wider it is, got {outputs[-1]} at width "
                f"{width}: the NNGP is a mean over outputs, and that of a fixed number of them "
                "does not tend to the kernel. Give it as many outputs as its width."
            )
        _check_memory(program, width, batch_size, kind)
        yield program


def _check_memory(program, width, batch_size, kind) -> None:
    reserved = program.memory_analysis()
    if reserved is None:
        return
    remedy = "Choose smaller widths"
    if kind == "ntk" and batch_size > 1:
        remedy += f", or batch_size=1 in place of {batch_size}"
    memory.check(
        {f"a network of width {width}, its gradients and its kernel": reserved.temp_size_in_bytes},
        *memory.share(jax.devices()[:1]),
        f"{remedy}.",
    )


def _network_of(kernel, kind, x) -> Callable[[int], Any]:
    """The network that a residual kernel is the kernel of, as a function of the width."""
    if not isinstance(kernel, rntk.ResidualKernel | conv.ResidualKernel):
        raise ValueError(
            "network must be given, since only rntk.ResidualKernel and conv.ResidualKernel say "
            f"which network they belong to, got {type(kernel).__name__}. Pass network=lambda "
            "width: …, for example a ResNet, a linen module or what stax returns."
        )
    if kernel.depth == math.inf:
        raise ValueError(
            "kernel must be of finite depth to have a network, got depth=inf. Pass "
            "kernel.at_depth(100), for example."
        )
    options = {
        "depth": kernel.depth,
        "schedule": kernel.schedule,
        "trained": kernel.trained,
        "normalize_blocks": kernel.normalize,
        "dtype": jnp.promote_types(x.dtype, jnp.float32),
    }
    if isinstance(kernel, rntk.ResidualKernel):
        make = functools.partial(ResNet, **options, in_dim=x.shape[-1])
        return lambda width: functools.partial(
            make, width=width, out_dim=width if kind == "nngp" else 1
        )
    make = functools.partial(
        ConvResNet,
        **options,
        pooling=kernel.pooling,
        block=kernel.block,
        filter_shape=kernel.filter_shape,
        padding=kernel.padding,
        image_shape=kernel.image_shape,
        in_channels=x.shape[-1],
    )
    return lambda width: functools.partial(
        make, channels=width, out_dim=width if kind == "nngp" else 1
    )


def _expected(kernel, kind, x) -> np.ndarray:
    """The kernel in the units of networks, float64."""
    values = kernel(x, None, kind) if _has_get(kernel) else kernel(x)
    values = np.asarray(values, np.float64)
    if values.shape != (len(x), len(x)) or not np.all(np.isfinite(values)) or not values.any():
        raise ValueError(
            f"kernel must give a finite matrix that is not zero, of shape {(len(x), len(x))} for "
            f"{len(x)} inputs, got {values.dtype} of shape {values.shape}."
        )
    if isinstance(kernel, rntk.ResidualKernel):
        # Networks divide by the number of features, and if normalized count their layers.
        log_scale = kernel.log_diagonal - kernel.effective_time if kernel.normalize else 0.0
        return values * math.exp(log_scale) / x.shape[-1]
    if isinstance(kernel, conv.ResidualKernel) and kind == "ntk" and kernel.normalize:
        return values * kernel.ntk_scale
    return values


def _kind(kernel, kind) -> Literal["ntk", "nngp"]:
    own = getattr(kernel, "kind", None) or getattr(kernel, "get", None)
    if not callable(kernel):
        raise TypeError(
            "kernel must be a residual kernel or a function of inputs, got "
            f"{type(kernel).__name__}. Of what stax returns it is the third."
        )
    if kind is None:
        kind = own or "ntk"
    _checks.choice(kind, "kind", ("ntk", "nngp"))
    if own and own != kind:
        raise ValueError(f"kind must be that of the kernel, {own!r}, got {kind!r}. Leave it out.")
    return kind


def _has_get(kernel) -> bool:
    try:
        return "get" in inspect.signature(kernel).parameters
    except ValueError:  # Some functions that are not written in Python have no signature.
        return False


def _key(key, width, i):
    return jax.random.fold_in(jax.random.fold_in(key, width), i)


def _check_widths(widths) -> list[int]:
    found = [_checks.integer(width, "widths", 1, "Pass whole numbers.") for width in widths]
    if len(found) < 2 or any(b <= a for a, b in itertools.pairwise(found)):
        raise ValueError(
            f"widths must be at least two that increase, for a slope, got {found}. Pass "
            "[64, 128, 256], for example."
        )
    return found


def _check_seeds(seeds, count) -> list[int]:
    several = isinstance(seeds, Sequence | np.ndarray) and not isinstance(seeds, str)
    given = list(seeds) if several else [seeds] * count
    if len(given) != count:
        raise ValueError(
            f"seeds must be one number of networks for each of {count} widths, got {len(given)}."
        )
    found = [_checks.integer(n, "seeds", 1, "Pass 30, for example.") for n in given]
    if min(found) < 2:
        raise ValueError(
            f"seeds must be at least 2, got {min(found)}: of one network there is no mean over "
            "draws and no confidence in a slope. Pass 30, for example."
        )
    return found


def _check_finite(values: np.ndarray, width: int) -> None:
    if not np.all(np.isfinite(values)):
        raise FloatingPointError(
            f"the empirical kernel of a network of width {width} must be finite, got NaN or "
            "infinity. Deep networks need normalize_blocks=True or smaller α."
        )
