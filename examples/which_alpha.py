"""Choose α for a deep residual network before you see any data.

    uv run python examples/which_alpha.py [--out FILE] [--dim 3]

If you train all layers, start with α = 1/√L. In the kernel regime with only the blocks trained,
start with 1/L. With α = L^(−γ) the exponent γ decides the limit of the kernel of a deep network.
The figure shows, for four values of γ: the kernel of 1000 blocks; how fast it approaches its
limit; its eigenvalues on the sphere; and the test error of kernel regression that these predict,
for an odd harmonic with noise as the target.
"""

import argparse
import pathlib

import numpy as np

from nt_residual import rntk, schedules, theory

GAMMAS = (0.0, 0.25, 0.5, 1.0)


def label(gamma):
    """Return the label of a curve."""
    return f"γ = {gamma:g}"


def main(arguments=None):
    """Print advice for each γ, and draw the figure."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=pathlib.Path, default="which_alpha.png")
    parser.add_argument("--dim", type=int, default=3, help="features of inputs on the sphere")
    parser.add_argument("--depth", type=int, default=1000, help="blocks of the finite networks")
    options = parser.parse_args(arguments)

    for gamma in GAMMAS:
        regime = theory.regime(schedules.PowerLaw(gamma))
        print(f"{label(gamma)}, {regime.name}. {regime.advice}\n")
    for trained in ("all", "blocks"):
        alpha = theory.suitable_schedule(trained=trained)(options.depth)[0]
        print(f"trained={trained!r}, {options.depth} blocks: start with α = {alpha:.3g}")

    figure = theory.plots.new_figure(11, 8.5)
    axes = figure.subplots(2, 2)
    deep = {
        label(gamma): rntk.ResidualKernel(options.depth, schedules.PowerLaw(gamma))
        for gamma in GAMMAS
    }
    theory.plots.profile(deep, ax=axes[0, 0])
    axes[0, 0].set_title(f"the kernel of {options.depth} blocks")

    depths = [10, 30, 100, 300, 1000]
    converging = {
        label(gamma): theory.convergence(schedules.PowerLaw(gamma), depths) for gamma in GAMMAS
    }
    theory.plots.convergence(converging, ax=axes[0, 1])
    axes[0, 1].set_title("its distance to the limit")

    spectra = {name: theory.spectrum(kernel, options.dim, 60) for name, kernel in deep.items()}
    theory.plots.spectrum(spectra, ax=axes[1, 0])
    axes[1, 0].set_title(f"its eigenvalues on the sphere in {options.dim} dimensions")

    target = {3: 1.0}
    n = np.geomspace(10, 1000, 30)
    curves = {
        name: theory.learning_curve(found, target, n, noise=0.5, ridge=0.1)
        for name, found in spectra.items()
    }
    theory.plots.learning_curve(curves, ax=axes[1, 1])
    axes[1, 1].set_title("predicted error, target of degree 3, noise 0.5, ridge 0.1")
    figure.savefig(options.out, dpi=110)
    print(f"wrote {options.out}")


if __name__ == "__main__":
    main()
