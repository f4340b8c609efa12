import functools
import json

import jax.numpy as jnp
import neural_tangents as nt
import numpy as np
import pytest
from helpers import run_python

from nt_residual import rntk, schedules
from nt_residual.gram import fingerprint

X = np.random.default_rng(0).standard_normal((9, 5)).astype(np.float32)


def _of(kernel, x1=X, x2=None, *, tile_size=4, dtype="float32"):
    return fingerprint.of(kernel, x1, x2, tile_size=tile_size, dtype=dtype)


def _dot(a, b):
    return a @ b.T


def _network(std):
    _, _, kernel_fn = nt.stax.serial(nt.stax.Dense(1, W_std=std), nt.stax.Relu(), nt.stax.Dense(1))
    return kernel_fn


def _kernels():
    for gamma in (0.5, 1.0):
        yield rntk.ResidualKernel(10, schedules.PowerLaw(gamma))
    yield rntk.ResidualKernel(11, schedules.PowerLaw(0.5))
    yield rntk.ResidualKernel(10, schedules.PowerLaw(0.5), kind="nngp")
    for std in (1.0, 1.5):
        for get in ("ntk", "nngp"):
            yield functools.partial(_network(std), get=get)


def test_kernels_of_other_parameters_differ_and_the_same_built_again_does_not():
    found = [_of(kernel)["kernel"] for kernel in _kernels()]
    assert len(set(found)) == len(found)
    assert found == [_of(kernel)["kernel"] for kernel in _kernels()]


def test_another_process_finds_the_same():
    code = """
import json
import numpy as np
from nt_residual import rntk, schedules
from nt_residual.gram import fingerprint
x = np.random.default_rng(0).standard_normal((9, 5)).astype(np.float32)
kernel = rntk.ResidualKernel(10, schedules.PowerLaw(0.5))
print(json.dumps(fingerprint.of(kernel, x, None, tile_size=4, dtype="float32")))
"""
    run = run_python(code)
    assert run.returncode == 0, run.stderr
    here = _of(rntk.ResidualKernel(10, schedules.PowerLaw(0.5)))
    assert json.loads(run.stdout) == here


def test_one_number_of_a_large_array_that_a_kernel_closes_over_makes_it_another():
    weights = jnp.arange(3000.0)
    found = {
        _of(lambda a, b, w=w: _dot(a, b) * w.max())["kernel"]
        for w in (weights, weights.at[2500].add(1e-3))
    }
    assert len(found) == 2


def test_one_bit_of_the_data_makes_it_other_data():
    other = X.copy()
    other[7, 3] = np.nextafter(other[7, 3], np.float32(9))
    assert fingerprint.difference(_of(_dot), _of(_dot, other)) == "x1"
    assert fingerprint.difference(_of(_dot, X, X), _of(_dot, X, other)) == "x2"
    assert fingerprint.difference(_of(_dot, X), _of(_dot, X, X)) == "x2"
    assert fingerprint.difference(_of(_dot), _of(_dot, X.astype(np.float64))) == "x1"
    assert fingerprint.difference(_of(_dot), _of(_dot, X.reshape(9, 5))) is None


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_data_is_the_same_in_an_array_of_jax_and_in_a_file(tmp_path, dtype, monkeypatch):
    x = X.astype(jnp.dtype(dtype))
    mapped = np.memmap(tmp_path / "x", dtype=x.dtype, mode="w+", shape=x.shape)
    mapped[:] = x
    expected = _of(_dot, x)
    monkeypatch.setattr(fingerprint, "_BLOCK_BYTES", 2 * x[0].nbytes)
    for same in (mapped, jnp.asarray(x), np.asfortranarray(x)):
        assert _of(_dot, same) == expected


def test_the_difference_is_named_once():
    stored = _of(_dot)
    assert fingerprint.difference(stored, dict(stored)) is None
    now = stored | {"jax": "0.0", "kernel": "as another jax lowers it", "x1": "other"}
    expected = f"x1, the version of jax ({stored['jax']}, now 0.0)"
    assert fingerprint.difference(stored, now) == expected
    for change, expected in (
        ({"tile_size": 3}, "the tile size ([4, 4], now [3, 3])"),
        ({"dtype": "float16"}, "the dtype (float32, now float16)"),
    ):
        assert fingerprint.difference(stored, _of(_dot, **change)) == expected
