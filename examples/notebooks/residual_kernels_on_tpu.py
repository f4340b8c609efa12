# %% [markdown]
# # Kernels of residual networks on all cores of a TPU
#
# The kernel matrix of all pairs of inputs is spread over the cores of a TPU by rows. Each core
# computes its own rows, and only the inputs are sent. This notebook computes a matrix, checks its
# precision and speed, and classifies handwritten digits with it. On Colab choose
# *Runtime → Change runtime type → TPU*. It also runs on GPUs and CPUs.
#
# The output shown here comes from eight devices simulated on the two cores of a CPU, where
# spreading the work saves no time. Run the cells to see the speed of a TPU.

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
DEPTH = 1000
N, FEATURES = (144, 64) if FAST else (8000, 784)  # Inputs of the matrix that is timed.
N_TRAIN = 192 if FAST else 1000  # Digits to train and to validate on.
DATASET = os.environ.get("NT_RESIDUAL_DATASET", "digits")  # Or 'mnist', which is downloaded.
BENCHMARKS = os.environ.get("NT_RESIDUAL_BENCHMARKS")  # The folder of a clone, for the last cell.

# %%
import math
import time

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from jax.sharding import AxisType

from nt_residual import data, gram, regression, rntk, schedules

devices = jax.devices()
print(f"JAX {jax.__version__}, {len(devices)} × {devices[0].device_kind} ({devices[0].platform})")

# %% [markdown]
# ## One matrix over all cores
#
# Its rows are spread over all axes of a mesh of devices. It stays where it was computed.

# %%
count = math.gcd(len(devices), N)
mesh = jax.make_mesh((count,), ("rows",), (AxisType.Auto,), devices=devices[:count])
kernel = rntk.ResidualKernel(DEPTH, schedules.PowerLaw(gamma=0.5))
x = data.sphere.uniform(N, FEATURES).astype("float32")


def seconds(**options):
    """Return the seconds of a matrix, once its program is compiled, and the matrix."""
    jax.block_until_ready(gram.compute(kernel, x, **options))
    start = time.perf_counter()
    k = jax.block_until_ready(gram.compute(kernel, x, **options))
    return time.perf_counter() - start, k


together, k = seconds(mesh=mesh)
rows = k.addressable_shards[0].data.shape[0]
print(f"{N} × {N} entries, {rows} rows on each of {count} devices: {together:.3g} s")

# %% [markdown]
# The same on one device. It computes only the tiles on and above the diagonal of the symmetric
# matrix. Devices that send nothing to each other compute all tiles: eight devices are at best four
# times as fast.

# %%
alone, single = seconds()
print(f"one device: {alone:.3g} s, {alone / together:.2g} times as long")
print(f"largest difference: {np.abs(np.asarray(k) - np.asarray(single)).max():.1e}")

# %% [markdown]
# ## Precision
#
# By default a TPU multiplies numbers with eight significant bits. `rntk` asks for all of float32.
# Layers of neural-tangents do not: set
# `jax.config.update("jax_default_matmul_precision", "highest")` before you use them. The next cell
# compares some entries of the matrix with the recursion in float64 on the host, and shows the error
# of the product of the inputs alone, in the default precision.

# %%
some = np.asarray(x[:100], np.float64)
some /= np.linalg.norm(some, axis=1, keepdims=True)
half_chord = np.linalg.norm(some[:, None] - some[None], axis=-1) / 2
expected = kernel.at_angle(2 * np.arcsin(np.minimum(half_chord, 1)))
error = np.abs(np.asarray(k[:100, :100]) - expected).max()
print(f"largest error of {expected.size} entries: {error:.1e}, bound {kernel.error_bound:.1e}")

part = jnp.asarray(some, jnp.float32)
for precision in ("default", "highest"):
    product = np.asarray(jnp.matmul(part, part.T, precision=precision))
    print(f"x @ x.T with precision={precision}: off by {np.abs(product - some @ some.T).max():.1e}")

# %% [markdown]
# ## Digits, with early stopping
#
# 30% of the training and validation digits have a wrong label. Gradient flow with the kernel of
# 1000 blocks stops where the error on the validation digits is least. All devices compute the
# matrix again; predictions at all times come from one factorization.

# %%
digits = data.load(DATASET, N_TRAIN)
generator = np.random.default_rng(0)
others = (digits.y_train + generator.integers(1, 10, N_TRAIN)) % 10
labels = np.where(generator.random(N_TRAIN) < 0.3, others, digits.y_train)
x_all, x_test = data.unit_norm(digits.x_train), data.unit_norm(digits.x_test)
n_fit = 3 * N_TRAIN // 4 // count * count  # A number that the devices divide.
x_fit, x_val = (part.astype("float32") for part in np.split(x_all, [n_fit]))
y_fit, y_val = np.split(data.centered_one_hot(labels, 10), [n_fit])

flow = regression.GradientFlow.fit(gram.compute(kernel, x_fit, mesh=mesh), y_fit)
k_others = np.asarray(kernel(np.concatenate([x_val, x_test]).astype("float32"), x_fit))
k_val, k_test = np.split(k_others, [len(x_val)])
stopping = regression.holdout(flow, k_val, y_val)
guesses = flow.predict(k_test, stopping.times).argmax(axis=-1)
accuracy = (guesses == digits.y_test).mean(axis=-1)
chosen = accuracy[np.argmin(stopping.errors)]
print(f"test accuracy {chosen:.1%} at t = {stopping.time:.3g}, {accuracy[-1]:.1%} at the last")

# %%
figure, axes = plt.subplots(figsize=(5, 3.4), layout="constrained")
axes.semilogx(stopping.times[:-1], 100 * accuracy[:-1])
axes.axvline(stopping.time, color="k", ls=":", label="chosen on validation digits")
axes.set(xlabel="training time t", ylabel="test accuracy (%)")
axes.legend()
plt.show()

# %% [markdown]
# ## Benchmarks
#
# The benchmarks of the repository run on this device, too. They check each result before they time
# it. Set `BENCHMARKS` to the folder of a clone.

# %%
if BENCHMARKS:
    sys.path.insert(0, BENCHMARKS)
    # As `python -m benchmarks` does, but in this process: a TPU serves only one at a time.
    from benchmarks.__main__ import main as run_benchmarks

    run_benchmarks(["--sizes", "quick"])
else:
    print("BENCHMARKS is not set: left out.")
