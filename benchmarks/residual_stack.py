"""What a deep residual kernel costs to compile, to run and to differentiate.

    uv run python benchmarks/residual_stack.py [--out FILE]

The same network three ways: `stax.ResidualStack`, neural-tangents' own layers unrolled
block by block, and, where it applies (the same α in all blocks, an even number of
convolutions), neural-tangents' `repeat`. Kernels are compared before they are timed.
Compile time includes tracing. Memory is the temporary memory of the compiled program.
"""

import argparse
import pathlib

import nt_residual  # isort: split

import common
import jax
import numpy as np
from neural_tangents import stax

# Unrolled networks deeper than this take minutes to compile.
DEEPEST_UNROLLED = 100
DEPTHS = (10, 100, 1_000, 10_000)


def dense(alpha=1.0):
    """A branch of the network of arXiv 2403.04545."""
    return stax.serial(stax.Dense(64, W_std=2**0.5), stax.Relu(), stax.Dense(64, W_std=alpha))


def convolutional(alpha=1.0):
    """A branch with one convolution, which `repeat` cannot loop over."""
    return stax.serial(stax.Relu(), stax.Conv(64, (3, 3), padding="SAME", W_std=alpha * 2**0.5))


NETWORKS = {
    "dense, 256 x 256 inputs": (stax.Dense(64), dense, stax.Dense(1), (256, 32)),
    "convolutional with pooling, 4 x 4 images of 8 x 8": (
        stax.Conv(64, (3, 3), padding="SAME"),
        convolutional,
        stax.serial(stax.GlobalAvgPool(), stax.Dense(1)),
        (4, 8, 8, 3),
    ),
}


def ways(first, branch, last, depth):
    """The ways to write a network, by name."""
    alpha = depth**-0.5
    block = stax.serial(
        stax.FanOut(2), stax.parallel(stax.Identity(), branch(alpha)), stax.FanInSum()
    )
    stack = nt_residual.stax.ResidualStack(branch(), np.full(depth, alpha))
    result = {"ResidualStack": stax.serial(first, stack, last)}
    if depth <= DEEPEST_UNROLLED:
        result["unrolled"] = stax.serial(first, *[block] * depth, last)
    if branch is dense:
        result["repeat"] = stax.serial(first, stax.repeat(block, depth), last)
    return result


def measure(first, branch, last, shape, depth):
    """Compile time, run time and memory of each way to write one network."""
    x1, x2 = (jax.random.normal(jax.random.PRNGKey(i), shape) for i in range(2))
    rows, expected = {}, None
    for name, (_, _, kernel_fn) in ways(first, branch, last, depth).items():

        def ntk(x1, x2, kernel_fn=kernel_fn):
            return kernel_fn(x1, x2, "ntk")

        compiled, compile_time = common.compile_timed(ntk, x1, x2)
        got = np.asarray(compiled(x1, x2))
        expected = got if expected is None else expected
        error = float(np.abs(got - expected).max() / np.abs(expected).max())
        assert error < 1e-4, f"{name} is off by {error}"
        rows[name] = {
            "compile_s": compile_time,
            "run_s": common.best_time(compiled, x1, x2),
            "memory_mb": compiled.memory_analysis().temp_size_in_bytes / 1e6,
            "error": error,
        }
    for row in rows.values():
        for quantity in ("compile_s", "run_s", "memory_mb"):
            row[f"{quantity}_ratio"] = row[quantity] / rows["ResidualStack"][quantity]
    return rows


def gradient_memory(depth=1000, batch=256):
    """Temporary memory of the gradient of a finite network, in activations of one block."""
    result = {}
    x = jax.ShapeDtypeStruct((batch, 32), "float32")
    for remat in (False, True):
        stack = nt_residual.stax.ResidualStack(dense(), np.full(depth, depth**-0.5), remat=remat)
        init_fn, apply_fn, _ = stax.serial(stax.Dense(64), stack, stax.Dense(1))
        params = jax.eval_shape(lambda key, f=init_fn: f(key, x.shape)[1], jax.random.PRNGKey(0))

        def loss(params, x, apply_fn=apply_fn):
            return (apply_fn(params, x) ** 2).sum()

        compiled = jax.jit(jax.grad(loss)).lower(params, x).compile()
        name = "remat" if remat else "plain"
        result[name] = compiled.memory_analysis().temp_size_in_bytes / (4 * batch * 64)
    return result


def main():
    """Prints a table, and writes the numbers as JSON if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=pathlib.Path, help="write the numbers there, as JSON")
    arguments = parser.parse_args()

    jax.config.update("jax_default_matmul_precision", "highest")
    result = {**common.machine(), "networks": {}}
    print(result["device"], result["versions"])
    for network in NETWORKS.values():
        measure(*network, 2)  # What JAX sets up once is not part of any compile time.
    for name, network in NETWORKS.items():
        print(f"\n{name}\n{'blocks':>7} {'':14} {'compile':>14} {'run':>16} {'memory':>17}")
        result["networks"][name] = {}
        for depth in DEPTHS:
            rows = measure(*network, depth)
            result["networks"][name][depth] = rows
            for way, row in rows.items():
                print(
                    f"{depth:7} {way:14} {row['compile_s']:6.2f} s {row['compile_s_ratio']:5.1f}× "
                    f"{1e3 * row['run_s']:7.1f} ms {row['run_s_ratio']:4.1f}× "
                    f"{row['memory_mb']:7.1f} MB {row['memory_mb_ratio']:5.1f}×"
                )
    result["gradient_memory_in_activations"] = gradient_memory()
    print("\ngradient through 1000 blocks, memory in activations of one block:")
    print(result["gradient_memory_in_activations"])
    common.write(result, arguments.out)


if __name__ == "__main__":
    import warnings

    # neural-tangents says so of every sum of branches.
    warnings.filterwarnings("ignore", message=".FanIn. layers assume independent")
    main()
