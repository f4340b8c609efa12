"""Which implementation of the empirical NTK is fastest, and by how much.

    uv run python benchmarks/empirical_ntk.py [--out FILE]

Each implementation of `nt.empirical_ntk_fn` computes the NTK of the same network; their
results are compared before they are timed. Times are the best of several calls after
compilation, which is given apart, and as ratios to `JACOBIAN_CONTRACTION` in the same run.
The networks are those of "Fast Finite Width Neural Tangent Kernel" (arXiv 2206.08720):
structured derivatives gain most on wide dense networks with many outputs, and least on
convolutional ones.
"""

import argparse
import pathlib

import nt_residual  # noqa: F401

# isort: split

import common
import jax
import neural_tangents as nt
import numpy as np
from networks import convolutional, dense

IMPLEMENTATIONS = [
    nt.NtkImplementation.JACOBIAN_CONTRACTION,
    nt.NtkImplementation.NTK_VECTOR_PRODUCTS,
    nt.NtkImplementation.STRUCTURED_DERIVATIVES,
]


NETWORKS = {
    "dense, width 512, 1 output": (dense(512, 3, 1), 8),
    "dense, width 512, 10 outputs": (dense(512, 3, 10), 8),
    "dense, width 512, 100 outputs": (dense(512, 3, 100), 4),
    "dense, width 1024, 64 outputs": (dense(1024, 3, 64), 4),
    "convolutional, 32 channels, 1 output": (convolutional(32, 3, 1), 4),
    "convolutional, 32 channels, 10 outputs": (convolutional(32, 3, 10), 4),
}


def measure(network, input_shape, batch, repeats):
    """Returns seconds to compile and to run, and counted operations, by implementation."""
    init_fn, f, _ = network
    x = jax.random.normal(jax.random.PRNGKey(0), (batch, *input_shape))
    _, params = init_fn(jax.random.PRNGKey(1), x.shape)
    rows, expected = {}, None
    for implementation in IMPLEMENTATIONS:
        ntk_fn = nt.empirical_ntk_fn(f, (), vmap_axes=0, implementation=implementation)
        compiled, compile_time = common.compile_timed(ntk_fn, x, None, params)
        ntk = np.asarray(compiled(x, None, params))
        expected = ntk if expected is None else expected
        error = float(np.abs(ntk - expected).max() / np.abs(expected).max())
        assert error < 1e-4, f"{implementation.name} is off by {error}"
        run_time = common.best_time(compiled, x, None, params, repeats=repeats)
        rows[implementation.name] = {
            "run_s": run_time,
            "compile_s": compile_time,
            "gigaflops": compiled.cost_analysis().get("flops", 0.0) / 1e9,
            "error": error,
        }
    base = rows["JACOBIAN_CONTRACTION"]["run_s"]
    for row in rows.values():
        row["speedup"] = base / row["run_s"]
    return rows


def main():
    """Prints a table, and writes the numbers as JSON if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=pathlib.Path, help="write the numbers there, as JSON")
    parser.add_argument("--repeats", type=int, default=5, help="timed calls (default 5)")
    arguments = parser.parse_args()

    jax.config.update("jax_default_matmul_precision", "highest")
    result = common.machine()
    print(result["device"], result["versions"])
    print(f"{'network':40} {'implementation':24} {'run':>10} {'speed-up':>8} {'compile':>8}")
    result["networks"] = {}
    for name, ((network, input_shape), batch) in NETWORKS.items():
        rows = measure(network, input_shape, batch, arguments.repeats)
        result["networks"][name] = {"batch": batch, **rows}
        for implementation, row in rows.items():
            print(
                f"{name:40} {implementation:24} {1e3 * row['run_s']:7.1f} ms "
                f"{row['speedup']:7.1f}× {row['compile_s']:6.1f} s"
            )
    common.write(result, arguments.out)


if __name__ == "__main__":
    main()
