"""What the kernel of a convolutional residual network costs per pair of images.

    uv run python benchmarks/conv_kernel.py [--out FILE] [--plot FILE]

The NTK of 8 blocks, by `conv.ResidualKernel` and by the `kernel_fn` of the same network
(`stax.ConvResNet`), which is neural-tangents' own; train-train (one batch, of which a
kernel needs half the pairs) and test-train. Results are compared before they are timed.

A block must read and write three numbers per pair of pixels (r r' − K, r r' + K and the NTK): 24
bytes in float32. `floor` is the time that this takes where nothing stays in
cache, by the bandwidth of a copy measured in the same run; `of floor` is that time over ours. On
a CPU tiles stay in cache, and it may exceed 1.
"""

import argparse
import pathlib

import common
import jax
import networks
import numpy as np

BLOCKS = 8
# Pooling, pixels on a side, images in a batch.
CASES = (("flatten", 32, 48), ("flatten", 8, 128), ("gap", 8, 32), ("gap", 16, 16))
BYTES = 3 * 2 * 4


def measure(pooling, side, n, bandwidth):
    """Microseconds per entry of the matrix, ours and neural-tangents', and their ratio."""
    x1, x2 = networks.images(n, side), networks.images(n, side, seed=1)
    ours, theirs = networks.conv_kernels(pooling, side, BLOCKS)
    result = {"pooling": pooling, "side": side, "images": n}
    for name, second in (("train-train", None), ("test-train", x2)):
        row = {}
        found = {}
        for who, kernel in (("ours", ours), ("neural_tangents", theirs)):

            def entries(x1, x2=None, kernel=kernel):
                return kernel(x1, x2)

            arguments = (x1,) if second is None else (x1, second)
            compiled, compile_time = common.compile_timed(entries, *arguments)
            found[who] = np.asarray(compiled(*arguments))
            repeats = 5 if who == "ours" else 2
            row[f"{who}_us"] = 1e6 * common.best_time(compiled, *arguments, repeats=repeats) / n**2
            row[f"{who}_compile_s"] = compile_time
        error = np.abs(found["ours"] - found["neural_tangents"]).max() / found["ours"].max()
        assert error < 1e-4, f"{name} is off by {error}"
        row["error"] = float(error)
        row["ratio"] = row["neural_tangents_us"] / row["ours_us"]
        positions = side ** (4 if pooling == "gap" else 2)
        computed = (n + 1) / (2 * n) if second is None else 1
        floor = 1e6 * computed * BYTES * positions * BLOCKS / bandwidth
        row["floor_us"], row["of_floor"] = floor, floor / row["ours_us"]
        result[name] = row
    return result


def scaling(n=32):
    """Microseconds per entry by the number of blocks and of pixels."""
    by_blocks, by_pixels = {}, {}
    for blocks in (1, 2, 4, 8, 16, 32, 64):
        by_blocks[blocks] = _time(16, blocks, n)
    for side in (4, 8, 16, 24, 32, 48, 64):
        by_pixels[side**2] = _time(side, BLOCKS, n)
    return {"by_blocks": by_blocks, "by_pixels": by_pixels}


def _time(side, blocks, n):
    x1, x2 = networks.images(n, side), networks.images(n, side, seed=1)
    compiled, _ = common.compile_timed(
        networks.conv_kernels("flatten", side, blocks)[0].__call__, x1, x2
    )
    return 1e6 * common.best_time(compiled, x1, x2) / n**2


def plot(result, path):
    """Time per pair against blocks and against pixels, with lines of slope 1."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(1, 2, figsize=(8, 3.2), layout="constrained", sharey=True)
    for panel, key, label in (
        (panels[0], "by_blocks", "blocks (16 × 16 pixels)"),
        (panels[1], "by_pixels", f"pixels ({BLOCKS} blocks)"),
    ):
        points = {int(k): v for k, v in result["scaling"][key].items()}
        x, y = np.array(list(points)), np.array(list(points.values()))
        panel.loglog(x, y, "o-", label="conv.ResidualKernel")
        panel.loglog(x, y[-1] * x / x[-1], "--", color="gray", label="linear")
        panel.set(xlabel=label)
    panels[0].set(ylabel="µs per pair of images")
    panels[0].legend(frameon=False)
    figure.suptitle(f"'flatten', float32, {result['device']}", fontsize=9)
    figure.savefig(path, dpi=150)


def main():
    """Prints a table, and writes the numbers as JSON and a plot if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=pathlib.Path, help="write the numbers there, as JSON")
    parser.add_argument("--plot", type=pathlib.Path, help="write the plot there")
    parser.add_argument("--quick", action="store_true", help="the smallest case alone")
    arguments = parser.parse_args()

    jax.config.update("jax_default_matmul_precision", "highest")
    bandwidth = common.copy_bandwidth()
    result = {**common.machine(), "blocks": BLOCKS, "copy_gb_per_s": bandwidth / 1e9, "cases": []}
    print(result["device"], result["versions"], f"copy {bandwidth / 1e9:.1f} GB/s")
    print(f"{'':10} {'':11} {'ours':>10} {'NT':>10} {'ratio':>7} {'of floor':>9} {'compile':>16}")
    for pooling, side, n in (("flatten", 8, 16),) if arguments.quick else CASES:
        case = measure(pooling, side, n, bandwidth)
        result["cases"].append(case)
        for name in ("train-train", "test-train"):
            row = case[name]
            print(
                f"{pooling:7} {side:2} {name:11} {row['ours_us']:7.1f} µs "
                f"{row['neural_tangents_us']:7.0f} µs {row['ratio']:6.1f}× {row['of_floor']:9.2f} "
                f"{row['ours_compile_s']:5.2f} s, {row['neural_tangents_compile_s']:5.2f} s"
            )
    if not arguments.quick:
        result["scaling"] = scaling()
        for key, points in result["scaling"].items():
            print(key, {k: round(v, 1) for k, v in points.items()})
        if arguments.plot:
            plot(result, arguments.plot)
    common.write(result, arguments.out)


if __name__ == "__main__":
    main()
