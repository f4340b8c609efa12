# %% [markdown]
# # The claims of the paper, reproduced
#
# *Improve Generalization Ability of Deep Wide Residual Network with A Suitable Scaling Factor*
# ([arXiv 2403.04545](https://arxiv.org/abs/2403.04545)) shows how the scale α of residual branches
# decides what a deep, wide network learns. This notebook runs one experiment for each claim, and
# compares the claim with the measurements. All of them take a few minutes on two cores.

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
# Parameters. With NT_RESIDUAL_FAST=1 in the environment one claim is run.
FAST = os.environ.get("NT_RESIDUAL_FAST") == "1"
CLAIMS = ["convergence"] if FAST else None  # None for all; or names, as listed below.
SETTING = os.environ.get("NT_RESIDUAL_SETTING", "quick")  # Or 'full', for an accelerator.
DATASET = os.environ.get("NT_RESIDUAL_DATASET", "digits")  # Or another name of data.load.
OUT = os.environ.get("NT_RESIDUAL_OUT", "reproduction")  # An interrupted run resumes there.

# %%
from IPython.display import Image, display

from nt_residual.experiments import reproduce
from nt_residual.experiments.claim import VERDICTS

for name, claim in reproduce.CLAIMS.items():
    print(f"{name}: {claim.TITLE}")

# %%
outcomes = reproduce.run(CLAIMS, setting=SETTING, dataset=DATASET, out=OUT, progress=True)

# %% [markdown]
# ## Claims and measurements
#
# Each finding states its criterion. The figure follows the findings of each claim.

# %%
for outcome in outcomes:
    print(f"{outcome.title}\n\n{outcome.statement}\n")
    for finding in outcome.findings:
        print(f"  The paper: {finding.claim}")
        print(f"   measured: {finding.measured}")
        print(f"             {VERDICTS[finding.agrees]}\n")
    display(Image(outcome.folder / "figure.png"))

# %% [markdown]
# `report.html` in the folder of the run has the same text and figures in one file. The numbers are
# in `rows.csv` and `result.json` in the folder of each claim.

# %%
agree = sum(outcome.agrees is True for outcome in outcomes)
print(f"{agree} of {len(outcomes)} claims agree with the paper in all their findings.")
