import os
import socket
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import collectives, counting, full
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from nt_residual import conv, gram, regression, rntk, schedules
from nt_residual.gram import sharded, tiles
from nt_residual.gram.operators import as_operator

CLOSE = {"rtol": 1e-5, "atol": 1e-5}
KINDS = [AxisType.Explicit, *full(AxisType.Auto)]

x = np.random.default_rng(0).standard_normal((48, 5)).astype(np.float32)
x[3] = x[40]
v = np.random.default_rng(1).standard_normal((48, 3)).astype(np.float32)


def _kernel(a, b):
    """A kernel that compiles fast, and is NaN at zero."""
    norms = jnp.linalg.norm(a, axis=1)[:, None] * jnp.linalg.norm(b, axis=1)
    return jnp.exp(2 * jnp.matmul(a, b.T, precision="highest") / norms)


@pytest.fixture(scope="module")
def whole():
    return np.asarray(_kernel(x, x))


def _mesh(*shape, kind=AxisType.Auto):
    names = ("a", "b")[: len(shape)]
    return jax.make_mesh(shape, names, axis_types=(kind,) * len(shape))


def _spread(array, mesh, *spec):
    return jax.device_put(array, NamedSharding(mesh, PartitionSpec(*spec)))


def _check_products(operator, k):
    found = operator.product(operator.place(v[: len(k)]))
    np.testing.assert_allclose(found, k @ v[: len(k)], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(operator.diagonal(), np.diag(k), rtol=1e-6)


def _collectives(function, *arguments):
    return collectives(jax.jit(function).lower(*arguments).compile())


@pytest.mark.parametrize(
    ("mesh", "tile_size"),
    [
        (_mesh(4, 2), 4),
        (_mesh(8, kind=AxisType.Explicit), None),
    ],
)
def test_eight_devices_compute_the_same_matrix(mesh, tile_size, whole):
    k = gram.compute(_kernel, x, mesh=mesh, tile_size=tile_size)
    rows = NamedSharding(mesh, PartitionSpec(mesh.axis_names))
    assert k.sharding.is_equivalent_to(rows, 2)
    np.testing.assert_allclose(k, whole, **CLOSE)
    np.testing.assert_array_equal(np.asarray(k), np.asarray(k).T)
    operator = as_operator(k)
    pointers = [a.addressable_data(0).unsafe_buffer_pointer() for a in (k, operator.matrix)]
    assert pointers[0] == pointers[1]
    _check_products(operator, whole)


def test_a_rectangle_is_spread_by_rows_or_its_inputs_are_on_different_devices(whole):
    k = gram.compute(_kernel, x[:16], x[:7], mesh=_mesh(8), tile_size=4)
    np.testing.assert_allclose(k, whole[:16, :7], **CLOSE)
    apart = [jax.device_put(a, d) for a, d in zip((x, x[:8]), jax.devices()[1:3], strict=True)]
    np.testing.assert_allclose(gram.compute(_kernel, *apart), whole[:, :8], **CLOSE)


@pytest.mark.parametrize("kind", KINDS)
def test_inputs_may_be_spread_over_devices_already(kind, whole):
    mesh = _mesh(8, kind=kind)
    spread = _spread(x, mesh, "a")
    np.testing.assert_allclose(gram.compute(_kernel, spread), whole, **CLOSE)
    other = _spread(x[:8], mesh)
    np.testing.assert_allclose(gram.compute(_kernel, x, other), whole[:, :8], **CLOSE)
    _check_products(gram.MatrixFree(_kernel, spread, tile_size=7), whole)
    found = gram.MatrixFree(_kernel, other, spread, tile_size=7) @ v
    np.testing.assert_allclose(found, whole[:8] @ v, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("n", "spec"), [(48, ()), (48, (None, "b")), (44, ("a",))])
def test_a_matrix_may_be_spread_in_any_way(n, spec, whole):
    _check_products(as_operator(_spread(whole[:n, :n], _mesh(4, 2), *spec)), whole[:n, :n])


def test_no_part_of_the_matrix_is_sent(whole):
    mesh = _mesh(8)
    operator = as_operator(_spread(whole, mesh, "a"))
    product = lambda k, v: k.product(v)  # noqa: E731
    assert _collectives(product, operator, operator.place(v)) == [("f32[48,3]", "all-gather")]
    free = gram.MatrixFree(_kernel, x[:45], mesh=mesh, tile_size=7)
    _check_products(free, whole[:45, :45])
    assert _collectives(product, free, free.place(v[:45])) == [("f32[45,3]", "all-reduce")]
    # A step of the loop over tiles sends nothing at all.
    cuts = {"rows": tiles.Cut(6, 3), "columns": tiles.Cut(48, 3)}
    step = lambda k, x: sharded._step(  # noqa: E731
        _kernel, k, x, x, 0, 0, mesh=mesh, symmetric=True, **cuts
    )
    assert _collectives(step, operator.matrix, _spread(x, mesh)) == []


def test_each_device_computes_its_part_and_what_the_diagonal_crosses_twice():
    kernel, sizes = counting(lambda a, b: a @ b.T)
    gram.compute(kernel, x, mesh=_mesh(8), tile_size=3).block_until_ready()
    assert sum(sizes) == 48 * 48 + 16 * 3 * 3


@pytest.mark.parametrize(
    ("n", "kind"),
    [
        (45, AxisType.Explicit),
        *[pytest.param(n, AxisType.Auto, marks=pytest.mark.full) for n in (5, 45)],
    ],
)
def test_any_number_of_inputs_is_spread_over_eight_devices(n, kind, whole):
    k = gram.compute(_kernel, x[:n], mesh=_mesh(8, kind=kind), tile_size=4)
    assert type(k) is gram.Sharded
    assert k.shape == (n, n)
    np.testing.assert_allclose(np.asarray(k), whole[:n, :n], **CLOSE)
    np.testing.assert_array_equal(np.asarray(k), np.asarray(k).T)
    _check_products(k, whole[:n, :n])
    shapes = {shard.data.shape for shard in k.matrix.addressable_shards}
    assert shapes == {(-(-n // 8), n)}


@pytest.mark.parametrize("solver", ["auto", *full("eigh")])
def test_regression_takes_a_matrix_of_any_number_of_rows(solver, whole):
    mesh, y = _mesh(8), np.sin(x[:45, 0])
    k = gram.compute(_kernel, x[:45], mesh=mesh, tile_size=4)
    k_test = gram.compute(_kernel, x[5:8], x[:45], mesh=mesh)
    assert k_test.shape == (3, 45)
    expected = regression.GradientFlow.fit(whole[:45, :45], y, solver="eigh")
    flow = regression.GradientFlow.fit(k, y, solver=solver)
    assert flow.solver == {"auto": "lanczos"}.get(solver, solver)
    found = flow.predict(k_test, 10.0)
    np.testing.assert_allclose(found, expected.predict(whole[5:8, :45], 10.0), atol=2e-4)


_SCHEDULE = schedules.PowerLaw(0.5)


def _quadratic(a, b, get):
    return (a @ b.T / a.shape[1]) ** 2


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("spec", [("a",), *full(())])
@pytest.mark.parametrize(
    ("kernel", "inputs"),
    [
        (rntk.ResidualKernel(3, _SCHEDULE), x),
        *[
            pytest.param(*case, marks=pytest.mark.full)
            for case in (
                (rntk.compile_homogeneous(_quadratic), x),
                (conv.ResidualKernel(2, _SCHEDULE, (2, 2)), x[:, :4].reshape(48, 2, 2, 1)),
            )
        ],
    ],
)
def test_kernels_take_inputs_on_any_mesh(kernel, inputs, kind, spec):
    expected = np.asarray(kernel(inputs))
    spread = _spread(inputs, _mesh(8, kind=kind), *spec)
    found = kernel(spread)
    np.testing.assert_allclose(found, expected, **CLOSE)
    assert len(found.sharding.device_set) == 8
    np.testing.assert_allclose(kernel(spread, inputs[:5]), expected[:, :5], **CLOSE)


USES = {
    "compute": lambda: gram.compute(_kernel, x, tile_size=20),
    "mesh": lambda: gram.compute(_kernel, x, mesh=_mesh(8)),
    "matrix free": lambda: gram.MatrixFree(_kernel, x, tile_size=20) @ v,
    "matrix free, mesh": lambda: gram.MatrixFree(_kernel, x, mesh=_mesh(8)) @ v,
    "diagonal": lambda: gram.MatrixFree(_kernel, x).diagonal(),
    "two batches": lambda: gram.MatrixFree(_kernel, x, x[:5]) @ v[:5],
    "flow on a mesh": lambda: regression.GradientFlow.fit(
        gram.compute(_kernel, x, mesh=_mesh(8)), x[:, 0]
    ).training_error(1.0),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("use", USES)
def test_values_in_the_context_of_a_mesh_are_those_outside(use, kind):
    outside = np.asarray(USES[use]())
    with jax.set_mesh(_mesh(8, kind=kind)):
        np.testing.assert_allclose(np.asarray(USES[use]()), outside, rtol=1e-5, atol=1e-5)


def test_what_cannot_be_spread_is_refused():
    mesh = _mesh(8)
    with pytest.raises(ValueError, match="inputs that are spread over devices"):
        gram.compute(_kernel, _spread(x, mesh, "a"), store="k")
    with pytest.raises(ValueError, match="kernel must be finite"):
        gram.compute(_kernel, 0 * x, mesh=mesh)
    many = np.broadcast_to(np.float32(1), (2_000_000, 1))
    with pytest.raises(MemoryError, match=r"each of 8 devices.*has .* free\. Use more"):
        gram.compute(_kernel, many, mesh=mesh)


_PROCESS = """
import sys
import jax
import numpy as np
from jax.sharding import AxisType
from nt_residual import gram, regression, rntk, schedules
from nt_residual.gram.operators import as_operator

jax.distributed.initialize(f"127.0.0.1:{sys.argv[1]}", 2, int(sys.argv[2]))
assert jax.process_count() == 2 and jax.device_count() == 4
kernel = rntk.ResidualKernel(100, schedules.PowerLaw(0.5))
x = np.random.default_rng(0).standard_normal((48, 5)).astype(np.float32)
v = np.random.default_rng(1).standard_normal((48, 3)).astype(np.float32)
whole = np.asarray(kernel(x))
mesh = jax.make_mesh((4,), ("a",), axis_types=(AxisType.Auto,))
k = gram.compute(kernel, x, mesh=mesh, tile_size=5, progress=True)
assert len(k.addressable_shards) == 2 and not k.is_fully_addressable
for shard in k.addressable_shards:
    np.testing.assert_allclose(shard.data, whole[shard.index], rtol=2e-6, atol=1e-5)
for matrix in (as_operator(k), gram.MatrixFree(kernel, x, mesh=mesh, tile_size=7)):
    found = matrix.product(matrix.place(v)).addressable_data(0)
    np.testing.assert_allclose(found, whole @ v, rtol=1e-4, atol=1e-4)
flow = regression.GradientFlow.fit(k, v)
expected = regression.GradientFlow.fit(whole, v, solver="eigh").predict(whole[:8], 10.0)
k_test = gram.compute(kernel, x[:8], x, mesh=mesh)
np.testing.assert_allclose(flow.predict(k_test, 10.0), expected, atol=2e-4)
"""


@pytest.mark.full
def test_two_processes_share_the_work():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", _PROCESS, port, str(index)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=2"},
        )
        for index in range(2)
    ]
    outputs = [process.communicate(timeout=200)[0] for process in processes]
    for process, output in zip(processes, outputs, strict=True):
        assert process.returncode == 0, output[-3000:]
    # The first process alone shows progress.
    assert ["tile/s" in output for output in outputs] == [True, False]
