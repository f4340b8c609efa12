"""The main entry points under JAX's strict and debug modes, and with arrays of any byte order."""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nt_residual import conv, gram, rntk, schedules
from nt_residual.regression import GradientFlow, RNTKRegressor

X = np.random.default_rng(0).standard_normal((6, 4)).astype(np.float32)
IMAGES = X[:3].reshape(3, 2, 2, 1)
ALPHAS = np.full(3, 0.3, np.float32)
KERNEL = rntk.ResidualKernel(10, schedules.PowerLaw(0.5))
HOMOGENEOUS = rntk.compile_homogeneous(lambda a, b, get: (a @ b.T / a.shape[1]) ** 2)
OF_IMAGES = conv.ResidualKernel(2, schedules.PowerLaw(0.5), (2, 2))
POOLED = conv.ResidualKernel(1, schedules.PowerLaw(0.5), (2, 2), pooling="gap", kind="nngp")
K = np.asarray(KERNEL(X))


def _linear(a, b):
    return 1 + a @ b.T


def _stored(x, folder):
    return np.asarray(gram.compute(_linear, x, tile_size=4, store=folder / "k"))


USES = {
    "rntk": lambda x, images, folder: KERNEL(x, x[:2]),
    "homogeneous": lambda x, images, folder: HOMOGENEOUS(x),
    "exact": lambda x, images, folder: rntk.residual_kernel(x, alphas=ALPHAS),
    "conv": lambda x, images, folder: OF_IMAGES(images),
    "pooled": lambda x, images, folder: POOLED(images, images[:2]),
    "compute": lambda x, images, folder: gram.compute(_linear, x, tile_size=4),
    "product": lambda x, images, folder: gram.product(_linear, x, x[:2], x[:2, 0]),
    "matrix free": lambda x, images, folder: gram.MatrixFree(_linear, x).product(x[:, :2]),
    "store": lambda x, images, folder: _stored(x, folder),
    "eigh": lambda x, images, folder: GradientFlow.fit(K, x[:, 0]).predict(K[:2], 1.0),
    "lanczos": lambda x, images, folder: GradientFlow.fit(K, x[:, :2], solver="lanczos").predict(
        K[:2], [1.0, 9.0]
    ),
    "estimator": lambda x, images, folder: (
        RNTKRegressor(depth=10, stopping=1.0).fit(x, X[:, 0]).predict(x[:2])
    ),
}
MODES = {
    "ranks": lambda: jax.numpy_rank_promotion("raise"),
    "dtypes": lambda: jax.numpy_dtype_promotion("strict"),
    "byte order": contextlib.nullcontext,
}


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    folder = tmp_path_factory.mktemp("matrices")
    return {name: np.asarray(use(X, IMAGES, folder)) for name, use in USES.items()}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", USES)
def test_values_do_not_depend_on_the_mode(mode, name, expected, tmp_path):
    x, images = (a.astype(">f4") if mode == "byte order" else a for a in (X, IMAGES))
    with MODES[mode]():
        found = np.asarray(USES[name](x, images, tmp_path))
    np.testing.assert_allclose(found, expected[name], rtol=2e-4, atol=2e-5)
    assert not jnp.isnan(found).any()


@pytest.mark.parametrize("name", ["compute", "product", "matrix free", "store"])
def test_matrices_are_made_where_nothing_is_to_be_compiled(name, expected, tmp_path):
    with jax.disable_jit():
        found = np.asarray(USES[name](X, IMAGES, tmp_path))
    np.testing.assert_allclose(found, expected[name], rtol=2e-4, atol=2e-5)
