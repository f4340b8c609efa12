"""Every public computation compiles for TPUs and GPUs, and the compiled programs keep promises.

Nothing is run, and no such device need be there.
"""

import jax
import pytest
from accelerator_programs import (
    HALF,
    KERNEL,
    LAYERED,
    OUTPUTS,
    PRECISE,
    SIDE,
    Rows,
    images_kernel,
    kernels_of,
    recursion,
    resnet,
    shape,
    summed,
    training,
)

from benchmarks import targets
from benchmarks.program_text import Program
from benchmarks.suite import conv_kernel
from nt_residual import rntk, stax

pytestmark = [
    pytest.mark.accelerator,
    pytest.mark.full,
    pytest.mark.filterwarnings("ignore:Linear scaling attention used"),
]

# What XLA does differently since.
OLD = jax.__version_info__ < (0, 11)

both = pytest.mark.parametrize("target", ["v5e", "h200"])


def devices(target, topology="2x2"):
    """The devices; where what compiles for them is missing the test is skipped."""
    try:
        return targets.devices(target, topology)
    except ModuleNotFoundError as error:
        pytest.skip(str(error))


def compiled(function, arguments, device):
    """What the compiler says of the memory, and the text of the program."""
    program = targets.compiled(function, arguments, device)
    text = Program(program.as_text())
    assert not text.host_calls()
    assert "f64" not in text.dtypes()
    return program.memory_analysis(), text


@both
@pytest.mark.parametrize("name", [*PRECISE, *LAYERED])
def test_every_computation_compiles(target, name, request):
    if (target, name) == ("h200", "stax Residual_NCHW") and OLD:
        reason = "XLA's Triton finds no tiles for a product of neural-tangents' convolution"
        request.applymarker(pytest.mark.xfail(strict=True, reason=reason))
    device = devices(target)[0]
    function, arguments = {**PRECISE, **LAYERED}[name]()
    _, text = compiled(function, arguments, device)
    if name in PRECISE:
        assert not text.imprecise_products()
    assert not text.collectives()


# Large enough that on no chip the matrix stays in a cache.
LARGE, FEW = 8192, 32
SYMMETRIC, TWO = (shape(LARGE, FEW),), (shape(LARGE, FEW), shape(LARGE, FEW))


@pytest.mark.parametrize(
    ("target", "batches", "most"),
    [
        ("v5e", TWO, 2),
        ("h200", TWO, 2),
        # A TPU's mirror image is two: it transposes by a copy, and a fusion reads that.
        ("v5e", SYMMETRIC, 4),
        ("h200", SYMMETRIC, 3),
    ],
)
def test_the_matrix_is_passed_over_a_few_times(target, batches, most):
    _, text = compiled(KERNEL, batches, devices(target)[0])
    passes, _ = text.passes(LARGE**2)
    assert passes <= most


@both
@pytest.mark.parametrize("batches", [TWO, SYMMETRIC])
def test_a_kernel_needs_little_more_memory_than_its_values(target, batches):
    memory, _ = compiled(KERNEL, batches, devices(target)[0])
    assert memory.temp_size_in_bytes <= 1.3 * memory.output_size_in_bytes


@pytest.mark.parametrize(
    ("target", "pooling", "most"),
    [("v5e", "flatten", 0.1), ("v5e", "gap", 0.2), ("h200", "flatten", 5), ("h200", "gap", 7)],
)
def test_a_convolutional_kernel_moves_few_bytes(target, pooling, most):
    """In units of 24 for each block, pair of images and pair of pixels."""
    n, blocks = 512 if pooling == "flatten" else 128, 4
    kernel = images_kernel(blocks, pooling=pooling)
    memory, text = compiled(kernel, (shape(n, SIDE, SIDE, 3),), devices(target)[0])
    least = conv_kernel.case("nt_residual", pooling, SIDE, n, blocks).counts(None).bytes
    # Tiles stay in a TPU's own memory. A GPU's cache holds what is in use.
    assert text.bytes() <= most * least
    assert memory.temp_size_in_bytes <= 50e6


def of_depth(name, depth):
    """A computation with so many blocks."""
    if name == "rntk":
        return rntk.ResidualKernel(depth, HALF), (shape(256, 32),)
    if name == "conv":
        return images_kernel(depth), (shape(6, 8, 8, 3),)
    return kernels_of(stax.FullyConnectedResNet(depth, 16, 1, HALF), shape(6, 32))


@both
@pytest.mark.parametrize("name", ["rntk", "conv", "stax"])
def test_programs_and_their_memory_do_not_grow_with_depth(target, name):
    (memory1, text1), (memory2, text2) = (
        compiled(*of_depth(name, depth), devices(target)[0]) for depth in (20, 2000)
    )
    assert len(text2.instructions) <= 1.05 * len(text1.instructions)
    # That of schedules: α of each block.
    schedule = 64 * 4 * 2000
    assert memory2.temp_size_in_bytes <= 1.05 * memory1.temp_size_in_bytes + schedule


@both
def test_the_program_of_training_does_not_grow_with_depth(target):
    (_, shallow), (_, deep) = (
        compiled(*training(resnet(depth), shape(64, 32)), devices(target)[0]) for depth in (10, 40)
    )
    assert len(deep.instructions) <= 1.05 * len(shallow.instructions)


# What a TPU's nested loops copy comes on top.
@pytest.mark.parametrize(("target", "most"), [("v5e", 1.1e9), ("h200", 0.8e9)])
def test_the_gradient_in_alpha_of_1000_blocks_takes_about_a_gigabyte(target, most):
    arguments = shape(1024, 32), shape(1000)
    memory, _ = compiled(jax.grad(summed(recursion), 1), arguments, devices(target)[0])
    assert memory.temp_size_in_bytes <= most


@both
def test_training_updates_its_state_in_place(target):
    program, arguments = training(resnet(), shape(64, 32))
    memory, _ = compiled(program, arguments, devices(target)[0])
    state = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(arguments[1]))
    assert memory.alias_size_in_bytes >= state


ON_MANY = {
    "landmarks": (Rows.landmarks, {}),
    "sharded matrix": (lambda rows: rows.step(16), {}),
    "sharded product": (
        lambda rows: rows.product(rows.matrix),
        {"all-gather": [rows_n := 256 * OUTPUTS]},
    ),
    "matrix-free product": (
        lambda rows: rows.product(rows.matrix_free),
        {"all-reduce": [rows_n]},
    ),
    "sharded Lanczos": (lambda rows: rows.lanczos(rows.matrix), {"all-gather": [rows_n]}),
    "matrix-free Lanczos": (lambda rows: rows.lanczos(rows.matrix_free), {"all-reduce": [rows_n]}),
    "inputs": (Rows.place, {"all-gather": [256 * 32]}),
}


@both
@pytest.mark.parametrize("topology", ["2x2", "4x4"])
@pytest.mark.parametrize("name", ON_MANY)
def test_devices_send_what_the_guides_say(target, topology, name):
    chips = devices(target, topology)
    make, expected = ON_MANY[name]
    _, text = compiled(*make(Rows(chips)), chips[0])
    assert text.collectives() == expected
    assert not text.imprecise_products()


@both
def test_devices_that_train_send_each_gradient_once(target):
    chips = devices(target)
    _, text = compiled(*Rows(chips).training(), chips[0])
    assert text.collectives().keys() == {"all-reduce"}
    weights = 10 * 2 * 16 * 16
    # In a loop the gradient of one block, or outside of it those of all; and the loss.
    assert sum(text.collectives()["all-reduce"]) <= weights + 1


@both
def test_a_kernel_of_spread_inputs_gathers_them_once(target):
    chips = devices(target)
    rows = Rows(chips)
    n, features = rows.n, rows.features
    _, text = compiled(KERNEL, (rows.spread(n, features),), chips[0])
    sent = text.collectives()
    # With two numbers of each input; and twice the marks of near pairs, a bit each.
    assert sum(sent["all-gather"]) <= n * (features + 2) + 2 * n * n // 32
    # The mirrored half of each device's rows.
    assert sent["all-to-all"] == [n * n // len(chips)]


@both
def test_a_kernel_sends_nothing_in_shard_map_with_copied_inputs(target):
    chips = devices(target)
    rows = Rows(chips)
    by_rows, everywhere = rows.by_rows.spec, rows.everywhere.spec
    specs = {"in_specs": (by_rows, everywhere), "out_specs": by_rows}
    inputs = rows.spread(rows.n, rows.features), rows.copied(rows.n, rows.features)
    _, text = compiled(jax.shard_map(KERNEL, mesh=rows.mesh, **specs), inputs, chips[0])
    assert not text.collectives()


@pytest.mark.parametrize(("target", "count"), [("v5e", 1), ("v2", 8)])
def test_the_notebook_for_tpus_compiles_at_its_own_sizes(target, count):
    """On one chip of Colab, and on the eight cores of the older kind."""
    chips = devices(target)[:count]
    rows = Rows(chips, 8000, 784)
    memory, text = compiled(*rows.step(4000), chips[0])
    assert not text.collectives()
    assert memory.temp_size_in_bytes + 2 * memory.output_size_in_bytes < 8e9
    digits = shape(1100, 64), shape(750, 64)
    compiled(KERNEL, digits, chips[0])
