# %% [markdown]
# # Fashion-MNIST: from the files to an accuracy that others published
#
# 60,000 images of clothing, 28 × 28 pixels, in ten classes. The kernel of an infinitely deep
# residual network learns them in about a minute on two cores, projected onto the span of 4000
# landmarks. Beside it: what depth does to the kernel if α does not fall, and published results.

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
# Parameters. With NT_RESIDUAL_FAST=1 in the environment: few handwritten digits, no download.
FAST = os.environ.get("NT_RESIDUAL_FAST") == "1"
DATASET = os.environ.get("NT_RESIDUAL_DATASET", "digits" if FAST else "fashion_mnist")
N_TRAIN = 300 if FAST else None  # None for all.
LANDMARKS = 100 if FAST else 4000
N_VALIDATION = 50 if FAST else 6000

# %% [markdown]
# ## The images
#
# They are downloaded once, or read from Debian's package `dataset-fashion-mnist`. Their content is
# checked against the published sums.

# %%
import matplotlib.pyplot as plt
import numpy as np

from nt_residual import data

images, names = data.load(DATASET, N_TRAIN), data.class_names(DATASET)
figure, panels = plt.subplots(1, 10, figsize=(12, 1.7))
for label, axes in enumerate(panels):
    axes.imshow(images.x_train[images.y_train == label][0, ..., 0], cmap="gray_r")
    axes.set_title(names[label], fontsize="small")
    axes.axis("off")
plt.show()
print(f"{len(images.x_train)} training images, {len(images.x_test)} test images")

# %% [markdown]
# Kernels need centered inputs: with raw pixels, which are all positive, all angles are small. The
# last images of the training set are held out, to choose the time when training stops.

# %%
flat = images.flat
center = flat.x_train.mean(axis=0)
x, x_test = (data.unit_norm(part - center) for part in (flat.x_train, flat.x_test))
x_train, x_val = x[:-N_VALIDATION], x[-N_VALIDATION:]
targets = data.centered_one_hot(flat.y_train, len(names))
y_train, y_val = targets[:-N_VALIDATION], targets[-N_VALIDATION:]

# %% [markdown]
# ## A kernel, projected onto landmarks, and stopped in time
#
# `gram.LowRank` passes over the images once, in tiles: neither the matrix of all pairs (14 GB) nor
# that of images and landmarks is stored.

# %%
import math
import time

from nt_residual import gram, regression, rntk, schedules

TIMES = np.append(np.geomspace(1, 1e7, 50), math.inf)


def fit(kernel):
    """Prints the accuracy of a kernel. Returns its predictions of the labels of test images."""
    start = time.perf_counter()
    low_rank = gram.LowRank(kernel, x_train, LANDMARKS, method="kmeans")
    flow = regression.GradientFlow.fit(low_rank, y_train)
    stopping = regression.holdout(flow, kernel(x_val, flow.landmarks), y_val, TIMES)
    predicted = flow.predict(kernel(x_test, flow.landmarks), stopping.time).argmax(axis=1)
    accuracy, seconds = np.mean(predicted == flat.y_test), time.perf_counter() - start
    print(f"{accuracy:.1%} right, stopped at t = {stopping.time:.3g}, {seconds:.0f} s")
    return predicted


predicted = fit(rntk.ResidualKernel(math.inf, schedules.PowerLaw(gamma=0.5)))

# %% [markdown]
# ## Depth without a falling α
#
# With α = 1 the kernel of 100,000 blocks is nearly constant, and most of what it could tell about
# images is lost. With α = 1/√L it is that of infinite depth.

# %%
for gamma in (0.0, 0.5):
    print(f"γ = {gamma:g}, 100,000 blocks: ", end="")
    fit(rntk.ResidualKernel(100_000, schedules.PowerLaw(gamma)))

# %% [markdown]
# ## What is mistaken for what

# %%
confused = np.zeros((len(names), len(names)), int)
np.add.at(confused, (flat.y_test, predicted), 1)
np.fill_diagonal(confused, 0)
for place in np.argsort(confused, axis=None)[::-1][:5]:
    truth, found = np.unravel_index(place, confused.shape)
    print(f"{confused[truth, found]:>4}  {names[truth]} taken for {names[found]}")

# %% [markdown]
# ## Beside published results
#
# Test accuracy with all 60,000 training images:
#
# | method | accuracy | source |
# |---|---|---|
# | support vector machine, RBF or polynomial kernel | 89.7% | [arXiv 1708.07747][1], table 3 |
# | network 256-128-64 | 90.0% | [the data set's list][2] |
# | convolutional networks, two layers | 87.6 to 92.5% | there |
# | VGG16, 26 million parameters | 93.5% | there |
# | wide ResNet, with augmentation | 95.9% | there |
#
# [1]: https://arxiv.org/abs/1708.07747
# [2]: https://github.com/zalandoresearch/fashion-mnist#benchmark
#
# The kernel above is of a fully-connected network: it does not know which pixels are neighbors.
# With the whole matrix in place of landmarks it is better than the support vector machine; see
# "Real images" in the documentation.
