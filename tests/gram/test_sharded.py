import os
import socket
import subprocess
import sys

from helpers import run_python

_SETUP = """
import re
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from nt_residual import gram, rntk, schedules
from nt_residual.gram import sharded
from nt_residual.gram.operators import as_operator

kernel = rntk.ResidualKernel(100, schedules.PowerLaw(0.5))
x = np.random.default_rng(0).standard_normal((48, 5)).astype(np.float32)
x[3] = x[40]
v = np.random.default_rng(1).standard_normal((48, 3)).astype(np.float32)
whole = np.asarray(kernel(x))
close = dict(rtol=2e-6, atol=1e-5)

def mesh_of(*shape, kind=AxisType.Auto):
    names = ("a", "b")[: len(shape)]
    return jax.make_mesh(shape, names, axis_types=(kind,) * len(shape))
"""


def _check(result):
    assert result.returncode == 0, result.stderr[-3000:]


def test_eight_devices_give_the_same_matrix_and_send_no_part_of_it():
    code = """
for mesh in (mesh_of(8), mesh_of(4, 2), mesh_of(8, kind=AxisType.Explicit)):
    for tile_size in (None, 4):
        k = gram.compute(kernel, x, mesh=mesh, tile_size=tile_size)
        assert k.sharding.is_equivalent_to(
            NamedSharding(mesh, PartitionSpec(mesh.axis_names)), 2
        ), k.sharding
        np.testing.assert_allclose(k, whole, **close)
        np.testing.assert_array_equal(np.asarray(k), np.asarray(k).T)
    operator = as_operator(k)
    assert operator.matrix.addressable_data(0).unsafe_buffer_pointer() == (
        k.addressable_data(0).unsafe_buffer_pointer())
    np.testing.assert_allclose(operator.product(operator.place(v)), whole @ v, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(operator.diagonal(), np.diag(whole), rtol=1e-6)

mesh = mesh_of(8)
rectangle = gram.compute(kernel, x[:16], x[:7], mesh=mesh, tile_size=4)
np.testing.assert_allclose(rectangle, whole[:16, :7], **close)
# Inputs that are spread over devices already.
for mesh in (mesh_of(8), mesh_of(8, kind=AxisType.Explicit)):
    spread = jax.device_put(x, NamedSharding(mesh, PartitionSpec("a")))
    np.testing.assert_allclose(gram.compute(kernel, spread), whole, **close)
    other = jax.device_put(x[:8], NamedSharding(mesh, PartitionSpec()))
    np.testing.assert_allclose(gram.compute(kernel, x, other), whole[:, :8], **close)
    free = gram.MatrixFree(kernel, spread, tile_size=7)
    np.testing.assert_allclose(free.product(free.place(v)), whole @ v, rtol=1e-4, atol=1e-4)
copies = jax.device_put(whole, NamedSharding(mesh_of(8), PartitionSpec()))
operator_of_copies = as_operator(copies)
np.testing.assert_allclose(
    operator_of_copies.product(operator_of_copies.place(v)), whole @ v, rtol=1e-4, atol=1e-4)
apart = [jax.device_put(a, d) for a, d in zip((x, x[:8]), jax.devices()[1:3])]
np.testing.assert_allclose(gram.compute(kernel, *apart), whole[:, :8], **close)
columns = jax.device_put(whole, NamedSharding(mesh_of(8), PartitionSpec(None, "a")))
np.testing.assert_allclose(as_operator(columns).product(v), whole @ v, rtol=1e-4, atol=1e-4)

def collectives(function, *arguments):
    text = jax.jit(function).lower(*arguments).compile().as_text()
    return re.findall(r"= (\\S+?)(?:{\\S*)? (all-\\w+|collective-\\w+|reduce-scatter)\\(", text)

assert collectives(lambda k, v: k.product(v), operator, operator.place(v)) == [
    ("f32[48,3]", "all-gather")]
free = gram.MatrixFree(kernel, x[:45], mesh=mesh_of(8), tile_size=7)
np.testing.assert_allclose(free.product(free.place(v[:45])), whole[:45, :45] @ v[:45],
                           rtol=1e-4, atol=1e-4)
assert collectives(lambda k, v: k.product(v), free, free.place(v[:45])) == [
    ("f32[45,3]", "all-reduce")]
# A step of the loop over tiles sends nothing at all.
mesh = mesh_of(8)
everywhere = NamedSharding(mesh, PartitionSpec())
by_rows = NamedSharding(mesh, PartitionSpec("a"))
x8 = jax.device_put(x, everywhere)
cut = sharded.Cut(6, 3)
step = lambda k, finite, x: sharded._step(
    kernel, k, finite, x, x, 0, 0, rows=cut, columns=sharded.Cut(48, 3), mesh=mesh, same=True)
arguments = jax.device_put(whole, by_rows), jax.device_put(np.ones(8, bool), by_rows), x8
assert collectives(step, *arguments) == []

# Each device makes an eighth of all entries, and those that the diagonal crosses twice.
made = []

def counted(a, b):
    jax.debug.callback(lambda: made.append(len(a) * len(b)))
    return a @ b.T

gram.compute(counted, x, mesh=mesh, tile_size=3).block_until_ready()
jax.effects_barrier()
assert sum(made) == 48 * 48 + 16 * 3 * 3, sum(made)
"""
    _check(run_python(_SETUP + code, devices=8))


def test_any_number_of_inputs_is_spread_over_eight_devices():
    code = """
from nt_residual import regression
y, x_test = np.sin(x[:, 0]), x[5:8]
for n, kind in ((5, AxisType.Auto), (45, AxisType.Auto), (45, AxisType.Explicit)):
    mesh = mesh_of(8, kind=kind)
    k = gram.compute(kernel, x[:n], mesh=mesh, tile_size=4)
    assert type(k) is gram.Sharded and k.shape == (n, n) and len(k.matrix) == -(-n // 8) * 8
    np.testing.assert_allclose(np.asarray(k), whole[:n, :n], **close)
    np.testing.assert_array_equal(np.asarray(k), np.asarray(k).T)
    np.testing.assert_allclose(k.product(k.place(v[:n])), whole[:n, :n] @ v[:n], rtol=1e-4,
                               atol=1e-4)
    np.testing.assert_allclose(k.diagonal(), np.diag(whole)[:n], rtol=1e-6)
    assert {shard.data.shape for shard in k.matrix.addressable_shards} == {(len(k.matrix) // 8, n)}
k_test = gram.compute(kernel, x_test, x[:45], mesh=mesh)
assert k_test.shape == (3, 45)
expected = regression.GradientFlow.fit(whole[:45, :45], y[:45], solver="eigh")
expected = expected.predict(whole[5:8, :45], 10.0)
for solver in ("auto", "eigh"):
    flow = regression.GradientFlow.fit(k, y[:45], solver=solver)
    assert flow.solver == {"auto": "lanczos"}.get(solver, solver)
    np.testing.assert_allclose(flow.predict(k_test, 10.0), expected, atol=2e-4)
# An array whose rows are spread over fewer devices than there are.
four = NamedSharding(mesh_of(4, 2), PartitionSpec("a"))
part = as_operator(jax.device_put(whole[:44, :44], four))
np.testing.assert_allclose(part.product(part.place(v[:44])), whole[:44, :44] @ v[:44], rtol=1e-4,
                           atol=1e-4)
"""
    _check(run_python(_SETUP + code, devices=8))


def test_kernels_take_inputs_on_any_mesh():
    code = """
from nt_residual import conv
alphas = np.full(3, 0.3, np.float32)
images = x[:, :4].reshape(48, 2, 2, 1)
kernels = [
    (conv.ResidualKernel(2, schedules.PowerLaw(0.5), (2, 2)), images),
    (rntk.compile_homogeneous(lambda a, b, get: (a @ b.T / a.shape[1]) ** 2), x),
    (lambda a, b=None: rntk.recursive_kernel(a, b, schedule=alphas), x),
]
for k, inputs in kernels:
    expected = np.asarray(k(inputs))
    for kind in (AxisType.Auto, AxisType.Explicit):
        for spec in (PartitionSpec("a"), PartitionSpec()):
            spread = jax.device_put(inputs, NamedSharding(mesh_of(8, kind=kind), spec))
            found = k(spread)
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
            assert len(found.sharding.device_set) == 8
            np.testing.assert_allclose(k(spread, inputs[:5]), expected[:, :5], rtol=1e-5, atol=1e-5)
"""
    _check(run_python(_SETUP + code, devices=8))


def test_values_in_the_context_of_a_mesh_are_those_outside():
    code = """
from nt_residual import conv, regression

def linear(a, b):
    return 1 + a.reshape(len(a), -1) @ b.reshape(len(b), -1).T

images = x[:, :4].reshape(48, 2, 2, 1)
of_images = conv.ResidualKernel(2, schedules.PowerLaw(0.5), (2, 2))
homogeneous = rntk.compile_homogeneous(lambda a, b, get: (a @ b.T / a.shape[1]) ** 2)
over = mesh_of(8)
fit, y = regression.GradientFlow.fit, np.sin(x[:, 0])
uses = [
    lambda: kernel(x),
    lambda: homogeneous(x),
    lambda: rntk.recursive_kernel(x, schedule=np.full(3, 0.3, np.float32)),
    lambda: of_images(images),
    lambda: gram.compute(kernel, x, tile_size=20),
    lambda: gram.compute(kernel, x, mesh=over),
    lambda: gram.compute(of_images, images, images[:5], mesh=over),
    lambda: gram.MatrixFree(linear, x, tile_size=20).product(v),
    lambda: gram.MatrixFree(linear, x, mesh=over).product(v),
    lambda: gram.MatrixFree(linear, x).diagonal(),
    lambda: gram.product(linear, x, x[:5], v[:5]),
    lambda: fit(whole, y, solver="lanczos").predict(whole[:3], 1.0),
    lambda: fit(whole, y, solver="lanczos").solve(1.0).value,
    lambda: fit(gram.compute(kernel, x, mesh=over), y).training_error(1.0),
    lambda: fit(gram.MatrixFree(kernel, x), y).predict(x_test=x[:3], t=1.0),
]
outside = [np.asarray(use()) for use in uses]
for kind in (AxisType.Auto, AxisType.Explicit):
    with jax.set_mesh(mesh_of(8, kind=kind)):
        for use, expected in zip(uses, outside):
            np.testing.assert_allclose(np.asarray(use()), expected, rtol=1e-5, atol=1e-6)
"""
    _check(run_python(_SETUP + code, devices=8))


def test_bad_meshes_and_values_are_refused_on_many_devices():
    code = """
def refused(error, message, *arguments, **options):
    try:
        gram.compute(*arguments, **options)
    except error as found:
        assert re.search(message, str(found)), found
    else:
        raise AssertionError(message)

mesh = mesh_of(8)
spread = jax.device_put(x, NamedSharding(mesh, PartitionSpec("a")))
refused(ValueError, "inputs that are spread over devices", kernel, spread, store="k")
refused(ValueError, "kernel must be finite", kernel, 0 * x, mesh=mesh)
many = np.broadcast_to(np.float32(1), (2_000_000, 1))
refused(MemoryError, "each of 8 devices.*has .* free. Use more", kernel, many, mesh=mesh)
"""
    _check(run_python(_SETUP + code, devices=8))


def test_two_processes_share_the_work():
    code = """
import sys
jax.distributed.initialize(f"127.0.0.1:{sys.argv[1]}", 2, int(sys.argv[2]))
assert jax.process_count() == 2 and jax.device_count() == 4
mesh = jax.make_mesh((4,), ("a",), axis_types=(AxisType.Auto,))
k = gram.compute(kernel, x, mesh=mesh, tile_size=5, progress=True)
assert len(k.addressable_shards) == 2 and not k.is_fully_addressable
for shard in k.addressable_shards:
    np.testing.assert_allclose(shard.data, whole[shard.index], **close)
for matrix in (as_operator(k), gram.MatrixFree(kernel, x, mesh=mesh, tile_size=7)):
    found = matrix.product(matrix.place(v)).addressable_data(0)
    np.testing.assert_allclose(found, whole @ v, rtol=1e-4, atol=1e-4)
# A regression, too.
from nt_residual import regression
flow = regression.GradientFlow.fit(k, v)
expected = regression.GradientFlow.fit(whole, v, solver="eigh").predict(whole[:8], 10.0)
k_test = gram.compute(kernel, x[:8], x, mesh=mesh)
np.testing.assert_allclose(flow.predict(k_test, 10.0), expected, atol=2e-4)
"""
    setup = _SETUP.replace("whole = np.asarray(kernel(x))\n", "")
    setup += code.replace("k = gram.compute", "whole = np.asarray(kernel(x))\nk = gram.compute")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", setup, port, str(index)],
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
