# %% [markdown]
# # Kernels of deep residual networks: quickstart
#
# A residual block computes `x + α·branch(x)`. How α falls with the depth L decides whether a deep,
# wide network can learn at all ([arXiv 2403.04545](https://arxiv.org/abs/2403.04545)). This
# notebook computes the kernel of such a network, shows its limit for several α, fits data with
# early stopping, and writes the same network in layers of neural-tangents.

# %%
# Installs nt_residual where it is missing, as on Colab, and leaves JAX as it is.
import importlib
import importlib.metadata
import importlib.util
import os
import subprocess
import sys

# The folder of a clone, a wheel, git+https://… of a repository, or its name on a package index.
SOURCE = os.environ.get("NT_RESIDUAL_SOURCE", "nt-residual")

if importlib.util.find_spec("nt_residual") is None:

    def pip_install(*requirements):
        """Installs packages for this notebook."""
        command = [sys.executable, "-m", "pip", "install", "-q", "--no-warn-conflicts"]
        subprocess.run([*command, *requirements], check=True)

    # neural-tangents declares TensorFlow, which is never imported: its dependencies are left out.
    pip_install("--no-deps", "neural-tangents==0.6.5", SOURCE)
    importlib.invalidate_caches()
    needed = [
        requirement
        for requirement in importlib.metadata.requires("nt-residual")
        if "extra ==" not in requirement and not requirement.startswith("neural-tangents")
    ]
    kept = [
        f"{name}=={importlib.metadata.version(name)}"
        for name in ("jax", "jaxlib", "flax")
        if importlib.util.find_spec(name)
    ]
    extras = ["frozendict>=2.4", "scikit-learn>=1.6", "matplotlib>=3.9", "pooch>=1.8"]
    pip_install(*extras, *needed, *kept)
    importlib.invalidate_caches()

# %%
# Parameters. With NT_RESIDUAL_FAST=1 in the environment everything is small.
FAST = os.environ.get("NT_RESIDUAL_FAST") == "1"
DEPTH = 20 if FAST else 1000
N = 80 if FAST else 400

# %%
import math

import jax
import matplotlib.pyplot as plt
import numpy as np

from nt_residual import data, regression, rntk, schedules, stax, theory
from nt_residual import neural_tangents as nt

# GPUs and TPUs compute float32 products with fewer digits unless you set this.
jax.config.update("jax_default_matmul_precision", "highest")

# %% [markdown]
# ## The kernel
#
# At any depth, also infinite, a call costs a small multiple of the product `x @ x.T`.

# %%
schedule = schedules.PowerLaw(gamma=0.5)  # α = L^(−1/2) in each of L blocks.
kernel = rntk.ResidualKernel(depth=DEPTH, schedule=schedule)
x = data.sphere.uniform(5, dim=3)
np.asarray(kernel(x)).round(3)

# %% [markdown]
# The figure shows the kernel against the angle, for four γ in α = L^(−γ). For γ < 1/2 it tends to
# 1/4 at every angle except zero: all different inputs look equally similar.

# %%
deep = {
    f"γ = {gamma:g}": rntk.ResidualKernel(DEPTH, schedules.PowerLaw(gamma))
    for gamma in (0.0, 0.25, 0.5, 1.0)
}
figure, axes = plt.subplots(figsize=(5, 3.4), layout="constrained")
theory.plots.profile(deep, ax=axes)
axes.set_title(f"{DEPTH} blocks")
plt.show()

# %% [markdown]
# ## Which α

# %%
for gamma in (0.25, 0.5, 1.0):
    regime = theory.regime(schedules.PowerLaw(gamma))
    print(f"γ = {gamma:g}, {regime.name}: {regime.advice}\n")
alpha = theory.suitable_schedule()(DEPTH)[0]
print(f"For {DEPTH} blocks with all layers trained start with α = {alpha:.3g}.")

# %% [markdown]
# ## Regression with early stopping
#
# Fit points on the sphere with noisy targets. A quarter of the points is held out to choose the
# time. One factorization serves all times. At t = ∞ the noise is fitted, too.

# %%
points = data.sphere.load(N, 1000, dim=3, coefficients={1: 1.0, 2: 1.0}, noise=1.0)
x_val, x_train = np.split(points.x_train, [N // 4])
y_val, y_train = np.split(points.y_train, [N // 4])

flow = regression.GradientFlow.fit(kernel(x_train), y_train)
# One call instead of two: JAX compiles a program for each shape.
k_others = np.asarray(kernel(np.concatenate([x_val, points.x_test]), x_train))
k_val, k_test = np.split(k_others, [N // 4])
stopping = regression.holdout(flow, k_val, y_val)
early, late = flow.predict(k_test, [stopping.time, math.inf])
for name, predicted in (("stopped early", early), ("t = ∞", late)):
    print(f"{name}: mean squared error {np.mean((predicted - points.y_test) ** 2):.3f}")

# %%
errors = np.square(flow.predict(k_test, stopping.times) - points.y_test).mean(axis=1)
figure, axes = plt.subplots(figsize=(5, 3.4), layout="constrained")
axes.loglog(stopping.times[:-1], errors[:-1], label="test")
axes.loglog(stopping.times[:-1], stopping.errors[:-1], label="held out, with noise")
axes.axvline(stopping.time, color="k", ls=":", label="chosen")
axes.set(xlabel="training time t", ylabel="mean squared error")
axes.legend()
plt.show()

# %% [markdown]
# ## In layers of neural-tangents
#
# Imported from `nt_residual`, all of neural-tangents works on today's JAX. Residual layers combine
# with its layers: any branch, any shortcut. This is the network of the kernel above.

# %%
branch = nt.stax.serial(nt.stax.Dense(1, W_std=2**0.5), stax.Relu(), nt.stax.Dense(1))
_, _, kernel_fn = nt.stax.serial(
    stax.Frozen(nt.stax.Dense(1)),
    stax.ResidualStack(branch, schedule(DEPTH), normalize_blocks=True),
    stax.Frozen(nt.stax.Dense(1)),
)
layers = kernel_fn(x, None, "ntk")
np.allclose(layers / layers[0, 0], kernel(x), atol=1e-4)

# %% [markdown]
# `rntk.compile_homogeneous(kernel_fn)` makes the kernels of other fully-connected networks as fast
# as the first kernel, for example with leaky ReLU and two layers per block.
