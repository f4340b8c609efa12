import collections

import numpy as np
import pytest

from nt_residual import cli

Files = collections.namedtuple("Files", "folder table numbers arrays model x labels targets")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A table with labels, one with numbers, the arrays of both, and a model of the first."""
    folder = tmp_path_factory.mktemp("files")
    rng = np.random.default_rng(0)
    x = rng.standard_normal((60, 3)).round(6)
    labels = np.where(x[:, 0] > x[:, 1], "left", "right")
    targets = (x[:, 0] / np.linalg.norm(x, axis=1)).round(6)
    table = write_csv(folder / "table.csv", ["a", "b", "c", "side"], [*x.T, labels])
    numbers = write_csv(folder / "numbers.csv", ["target", "a", "b", "c"], [targets, *x.T])
    arrays = folder / "arrays.npz"
    np.savez(arrays, x=x, y=targets, side=labels)
    model = folder / "model.npz"
    assert cli.main(["fit", str(table), "--out", str(model), *FAST]) == 0
    return Files(folder, table, numbers, arrays, model, x, labels, targets)


# A short network, and no time to search for.
FAST = ("--depth=10", "--stopping=20")


def write_csv(path, names, columns):
    """Writes a CSV file, and returns its path."""
    rows = [names, *zip(*columns, strict=True)]
    path.write_text("".join(",".join(map(str, row)) + "\n" for row in rows), "utf-8")
    return path
