"""`jax.pmap` as neural-tangents uses it, on `jax.shard_map`."""

import functools
from collections.abc import Callable
from typing import Any

import jax
from jax.core import Tracer
from jax.sharding import AxisType, NamedSharding, PartitionSpec


def pmap(fun: Callable) -> Callable:
    """Map a function over the leading axis of all arrays in its arguments, one device an entry.

    `jax.pmap` refuses arrays that live on another device since JAX 0.8; neural-tangents passes
    such.
    """
    by_device = PartitionSpec("device")

    def on_device(args: Any, kwargs: Any) -> Any:
        args, kwargs = jax.tree.map(lambda x: x[0], (args, kwargs))
        return jax.tree.map(lambda x: jax.numpy.asarray(x)[None], fun(*args, **kwargs))

    @functools.cache
    def compiled(device_count: int) -> tuple[Callable, NamedSharding]:
        mesh = jax.make_mesh(
            (device_count,),
            ("device",),
            axis_types=(AxisType.Auto,),
            devices=jax.local_devices()[:device_count],
        )
        mapped = jax.shard_map(
            on_device, mesh=mesh, in_specs=by_device, out_specs=by_device, check_vma=False
        )
        return jax.jit(mapped), NamedSharding(mesh, by_device)

    @functools.wraps(fun)
    def mapped(*args: Any, **kwargs: Any) -> Any:
        device_count = jax.tree.leaves((args, kwargs))[0].shape[0]
        function, sharding = compiled(device_count)
        if not any(isinstance(x, Tracer) for x in jax.tree.leaves((args, kwargs))):
            args, kwargs = jax.device_put((args, kwargs), sharding)
        return function(args, kwargs)

    return mapped
