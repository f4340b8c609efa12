"""Bring the notebooks up to date with their scripts.

    uv run python examples/notebooks/build.py [--execute] [NAME …]

Each notebook is a pair of files: you edit `NAME.py`, and this program writes `NAME.ipynb`, which
is read on the web. With --execute it runs the cells and stores their output. Without --execute,
cells keep their stored output up to the first cell whose code has changed. Once pyproject.toml
names the address of the repository on GitHub, `[project.urls] Repository`, notebooks get a badge
that opens them in Colab.
"""

import argparse
import copy
import os
import pathlib
import tempfile
import tomllib

import jupytext
import nbformat

FOLDER = pathlib.Path(__file__).parent
NAMES = ("quickstart", "residual_kernels_on_tpu", "reproduce_the_paper", "fashion_mnist")
# Without a TPU: so many devices, simulated on the CPU.
SIMULATED = {"residual_kernels_on_tpu": 8}


def repository(project=FOLDER.parent.parent / "pyproject.toml"):
    """The address of the repository, or `None` while it has none."""
    with open(project, "rb") as file:
        return tomllib.load(file)["project"].get("urls", {}).get("Repository")


def badge(address, name):
    """The link that opens a notebook of a repository on GitHub in Colab."""
    path = address.rstrip("/").removesuffix(".git").partition("github.com/")[2]
    if not path:
        raise ValueError(f"Repository must be an address on github.com for Colab, got {address!r}.")
    colab = "https://colab.research.google.com"
    target = f"{colab}/github/{path}/blob/main/examples/notebooks/{name}.ipynb"
    return f"[![Open in Colab]({colab}/assets/colab-badge.svg)]({target})"


def from_script(name, address):
    """The notebook of a script, without output."""
    notebook = jupytext.read(FOLDER / f"{name}.py", fmt="py:percent")
    notebook.metadata = nbformat.from_dict(
        {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        }
    )
    if name in SIMULATED:
        notebook.metadata["accelerator"] = "TPU"
    if address is not None:
        link, first = badge(address, name), notebook.cells[0]
        if link not in first.source:
            first.source = f"{link}\n\n{first.source}"
    for i, cell in enumerate(notebook.cells):
        cell.id, cell.metadata = f"cell-{i}", nbformat.from_dict({})
    return notebook


def sources(notebook):
    """Return the kinds and texts of the cells of a notebook."""
    return [(cell.cell_type, cell.source) for cell in notebook.cells]


def keep_output(notebook, before):
    """Copies the output of cells, as long as they and all code before them are as they were."""
    now, then = ([c for c in n.cells if c.cell_type == "code"] for n in (notebook, before))
    for cell, known in zip(now, then, strict=False):
        if cell.source != known.source:
            break
        cell.outputs = copy.deepcopy(known.outputs)
        cell.execution_count = known.execution_count


def execute(notebook, name):
    """Runs all cells in a folder of their own, and keeps what they show."""
    from nbclient import NotebookClient

    environment = dict(os.environ)
    if name in SIMULATED:
        environment["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={SIMULATED[name]}"
    with tempfile.TemporaryDirectory() as folder:
        client = NotebookClient(
            notebook,
            timeout=3600,
            kernel_name="python3",
            record_timing=False,
            resources={"metadata": {"path": folder}},
        )
        client.execute(env=environment)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            # Progress bars and notes of the machine are of no use to readers.
            cell.outputs = [out for out in cell.outputs if out.get("name") != "stderr"]
    notebook.metadata["language_info"] = nbformat.from_dict({"name": "python"})


def main(arguments=None):
    """Writes the notebooks that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="all of them, if none is given")
    parser.add_argument("--execute", action="store_true", help="run the cells")
    options = parser.parse_args(arguments)
    unknown = set(options.names) - set(NAMES)
    if unknown:
        parser.error(f"NAME must be one of {', '.join(NAMES)}, got {', '.join(sorted(unknown))}")
    address = repository()
    for name in options.names or NAMES:
        path, notebook = FOLDER / f"{name}.ipynb", from_script(name, address)
        if options.execute:
            execute(notebook, name)
        elif path.exists():
            keep_output(notebook, nbformat.read(path, as_version=4))
        nbformat.write(notebook, path)
        print(f"wrote {path.name}, {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
