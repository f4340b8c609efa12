"""The main entry points under JAX's strict and debug modes, and with arrays of any byte order."""

import contextlib

import jax
import numpy as np
import pytest
from helpers import enable_x64

from nt_residual import conv, gram, regression, rntk, schedules, stax
from nt_residual.regression import GradientFlow, RNTKRegressor

X = np.random.default_rng(0).standard_normal((6, 4)).astype(np.float32)
IMAGES = X[:3].reshape(3, 2, 2, 1)
ALPHAS = np.full(3, 0.3, np.float32)
KERNEL = rntk.ResidualKernel(10, schedules.PowerLaw(0.5))
OF_IMAGES = conv.ResidualKernel(2, schedules.PowerLaw(0.5), (2, 2))
POOLED = conv.ResidualKernel(1, schedules.PowerLaw(0.5), (2, 2), pooling="gap", kind="nngp")
LAYERS = stax.FullyConnectedResNet(3, 1, schedule=schedules.PowerLaw(0.5))[2]
K = np.asarray(KERNEL(X))
TIMES = [1.0, 9.0]


def _linear(a, b):
    return 1 + a @ b.T


def _stored(x, folder):
    return np.asarray(gram.compute(_linear, x, tile_size=4, store=folder / "k"))


def _compiled(x):
    return rntk.compile_homogeneous(lambda a, b, get: (a @ b.T / a.shape[1]) ** 2)(x)


def _rules(x):
    flow, y = GradientFlow.fit(K, x[:, 0]), x[:, 0]
    rules = [
        regression.holdout(flow, K[:2], y[:2], TIMES),
        regression.generalized_cross_validation(flow, TIMES),
        regression.leave_one_out(flow, y, TIMES),
        regression.kfold(K, y, 2, times=TIMES),
    ]
    return [rule.errors for rule in rules]


USES = {
    "rntk": lambda x, images, folder: KERNEL(x, x[:2]),
    "homogeneous": lambda x, images, folder: _compiled(x),
    "recursion": lambda x, images, folder: rntk.recursive_kernel(x, schedule=ALPHAS),
    "conv": lambda x, images, folder: OF_IMAGES(images),
    "pooled": lambda x, images, folder: POOLED(images, images[:2]),
    "compute": lambda x, images, folder: gram.compute(_linear, x, tile_size=4),
    "product": lambda x, images, folder: gram.MatrixFree(_linear, x, x[:2]) @ x[:2, 0],
    "matrix free": lambda x, images, folder: gram.MatrixFree(_linear, x).product(x[:, :2]),
    "store": lambda x, images, folder: _stored(x, folder),
    "eigh": lambda x, images, folder: GradientFlow.fit(K, x[:, 0]).predict(K[:2], 1.0),
    "lanczos": lambda x, images, folder: GradientFlow.fit(K, x[:, :2], solver="lanczos").predict(
        K[:2], TIMES
    ),
    "lanczos in tiles": lambda x, images, folder: GradientFlow.fit(
        gram.MatrixFree(_linear, x), x[:, :2]
    ).predict(gram.MatrixFree(_linear, x[:2], x), TIMES),
    "stopping": lambda x, images, folder: _rules(x),
    "layers": lambda x, images, folder: LAYERS(np.asarray(x, np.float32), None, "ntk"),
    "estimator": lambda x, images, folder: (
        RNTKRegressor(depth=10, stopping=1.0).fit(x, X[:, 0]).predict(x[:2])
    ),
}


@contextlib.contextmanager
def _strict():
    with jax.numpy_rank_promotion("raise"), jax.numpy_dtype_promotion("strict"):
        yield


MODES = {
    "strict promotion": _strict,
    "byte order": contextlib.nullcontext,
    "nan": lambda: jax.debug_nans(True),
    "leaks": lambda: jax.checking_leaks(),
    "float64": lambda: enable_x64(),
    "nothing compiled": lambda: jax.disable_jit(),
}
# These take long to compile.
SLOW = {"conv", "pooled", "layers"}


def _cases():
    for mode in MODES:
        for name in USES:
            usual = mode == "strict promotion" or (mode == "float64" and name not in SLOW)
            yield pytest.param(name, mode, marks=[] if usual else [pytest.mark.full])


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    folder = tmp_path_factory.mktemp("matrices")
    return {name: np.asarray(use(X, IMAGES, folder)) for name, use in USES.items()}


@pytest.mark.parametrize(("name", "mode"), list(_cases()))
def test_values_do_not_depend_on_the_mode(name, mode, expected, tmp_path):
    x, images = (a.astype(">f4") if mode == "byte order" else a for a in (X, IMAGES))
    with MODES[mode]():
        found = np.asarray(USES[name](x, images, tmp_path))
    np.testing.assert_allclose(found, expected[name], rtol=2e-4, atol=2e-5)
    assert not np.isnan(found).any()
