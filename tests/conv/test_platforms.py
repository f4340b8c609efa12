"""Programs for a platform that is not the default one."""

import jax
import jax.numpy as jnp
import pytest

from nt_residual import conv, schedules


@pytest.mark.parametrize(("platform", "tiles"), [("cpu", 64), ("cuda", 16)])
def test_a_program_has_the_tiles_of_its_target(platform, tiles):
    kernel = conv.ResidualKernel(2, schedules.PowerLaw(0.5), image_shape=(8, 8), pooling="gap")
    x1, x2 = (jax.ShapeDtypeStruct((64, 8, 8, 1), jnp.float32),) * 2
    lowered = jax.jit(kernel).trace(x1, x2).lower(lowering_platforms=(platform,))
    # The starts of the tiles, over which the program loops.
    assert f"tensor<{tiles}x2xi32>" in lowered.as_text()
