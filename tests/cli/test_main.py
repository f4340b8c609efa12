import os
import subprocess
import sys
import types

import numpy as np
import pytest
from helpers import run_python

from nt_residual import cli
from nt_residual.cli import options

COMMANDS = ["demo", "fit", "predict", "regime", "spectrum", "reproduce", "bench", "doctor"]


@pytest.fixture(autouse=True)
def claims(monkeypatch):
    """The claims that `reproduce` knows, none of which is run here."""
    module = types.ModuleType("reproduce")
    module.CLAIMS = {
        "parity": types.SimpleNamespace(TITLE="Odd harmonics"),
        "minimax": types.SimpleNamespace(TITLE="The best rate"),
    }
    monkeypatch.setitem(sys.modules, "nt_residual.experiments.reproduce", module)
    monkeypatch.setattr("nt_residual.experiments.reproduce", module, raising=False)
    return module


@pytest.fixture
def wrong(files):
    """Files each of which has something wrong with it."""
    folder = files.folder

    def text(name, content):
        (folder / name).write_bytes(content.encode("latin-1"))

    text("nan.csv", "a,b,y\n1,2,u\n\n3,nan,v\n")
    text("words.csv", "a,b,y\n1,2,u\n3,many,v\n")
    text("missing.csv", "a,b,y\n1,2,u\n3,4,\n")
    text("ragged.csv", "a,b,y\n1,2,u\n3,4\n")
    text("twice.csv", "a,a,y\n1,2,u\n3,4,v\n")
    text("semicolons.csv", "a;b;y\n1;2;u\n3;4;v\n")
    text("empty.csv", "a,b,y\n")
    text("latin.csv", "a,b,y\n1,2,\xe9\n3,4,v\n")
    text("one_class.csv", "a,b,y\n1,2,u\n3,5,u\n")
    text("text.npz", "not an archive")
    np.savez(folder / "objects.npz", x=np.array([[{}]], object), y=np.ones(1))
    np.savez(folder / "no_y.npz", x=np.ones((4, 2)))
    np.savez(folder / "nan.npz", x=np.array([[1.0, np.nan], [1, 2]]), y=np.ones(2))
    np.savez(folder / "nan_y.npz", x=np.ones((2, 2)), y=np.array([1.0, np.nan]))
    np.savez(folder / "long_y.npz", x=np.ones((2, 2)), y=np.ones(3))
    np.savez(folder / "flat.npz", x=np.ones(2), y=np.ones(2))
    np.savez(folder / "two.npz", x=np.ones((2, 2)), y=np.ones(2))
    np.savez(
        folder / "widths.npz",
        **{"x_train": np.ones((4, 2)), "y_train": np.ones(4)},
        **{"x_test": np.ones((4, 3)), "y_test": np.ones(4)},
    )
    (folder / "truncated.npz").write_bytes(files.model.read_bytes()[:-40])
    return folder


def _words(line, folder):
    return [word.replace("@", f"{folder}/") for word in line.split()]


FIT = "--out @x.npz --test-fraction 0 --stopping 20"
WRONG_WORDS = [
    ("", "the following arguments are required: command"),
    ("fly", "invalid choice: 'fly'"),
    ("fit", "the following arguments are required: DATA, --out"),
    (f"fit @table.csv {FIT} --fast", "unrecognized arguments: --fast"),
    (f"fit @table.csv {FIT} --gamma -1", "--gamma: expected a finite number ≥ 0, got '-1'"),
    (f"fit @table.csv {FIT} --c 0", "--c: expected a finite number > 0, got '0'"),
    (f"fit @table.csv {FIT} --stopping soon", "expected one of auto, holdout"),
    (f"fit @table.csv {FIT} --stopping nan", "expected one of auto, holdout"),
    (f"fit @table.csv {FIT} --n-train 1", "expected an integer ≥ 2, got '1'"),
    (f"fit @table.csv {FIT} --task cluster", "--task: invalid choice: 'cluster'"),
    ("predict @model.npz", "the following arguments are required: DATA"),
    ("regime --depth 0", "expected an integer ≥ 1 or inf, got '0'"),
    ("spectrum --dim 1", "expected an integer ≥ 2, got '1'"),
    ("spectrum --out table.doc", "expected a file that ends in .csv or .png or .svg or .pdf"),
    ("reproduce --quick --full", "--full: not allowed with argument --quick"),
    ("doctor now", "unrecognized arguments: now"),
]
WRONG_INPUT = [
    (f"fit @nowhere.csv {FIT}", "there is no file"),
    (
        f"fit iris {FIT}",
        "DATA must be a CSV or NPZ file or one of digits, mnist, cifar10, cifar100",
    ),
    (f"fit @table.csv {FIT} --label age", "must have the label column 'age', got the columns 'a'"),
    (f"fit @nan.csv {FIT}", "line 4: column 'b' must hold finite numbers, got 'nan'"),
    (f"fit @words.csv {FIT}", "line 3: column 'b' must hold finite numbers, got 'many'"),
    (f"fit @missing.csv {FIT}", "line 3: column 'y' must hold labels, got ''"),
    (f"fit @ragged.csv {FIT}", "line 3 must have 3 fields, as the first has, got 2"),
    (f"fit @twice.csv {FIT}", "must name each column once in its first row, got 'a'"),
    (f"fit @semicolons.csv {FIT}", "columns other than the label 'a;b;y', separated by commas"),
    (f"fit @empty.csv {FIT}", "must have a row of names and rows of data, got 1"),
    (f"fit @latin.csv {FIT}", "must be a CSV file in UTF-8"),
    (f"fit @one_class.csv {FIT}", "y must hold at least two classes"),
    (f"fit @table.csv {FIT} --task regress", "'side' must hold finite numbers, got 'left'"),
    (f"fit @table.csv {FIT} --n-train 61", "--n-train must be at most 60"),
    (f"fit @table.csv {FIT} --root @.", "--root must be left out for the file"),
    (f"fit digits {FIT}", "--test-fraction must be left out for the data set 'digits'"),
    ("fit digits --out @x.npz --label y", "--label must be left out for the data set 'digits'"),
    ("fit digits --out @x.npz --n-train 9999", "n_train must be"),
    ("fit mnist --out @x.npz --root @empty", "images-idx3-ubyte"),
    ("fit @table.csv --out @no/x.npz", "--out must be in a folder that exists"),
    ("fit @table.csv --out @.", "--out must be a file, got the folder"),
    (f"fit @text.npz {FIT}", "must be a whole NPZ file of numbers and texts"),
    (f"fit @objects.npz {FIT}", "Object arrays cannot be loaded"),
    (f"fit @no_y.npz {FIT}", "must have an array 'y', got ['x']"),
    (f"fit @nan.npz {FIT}", "must hold finite numbers, got NaN or infinity in row 0"),
    (f"fit @nan_y.npz {FIT}", "must hold finite numbers, got nan in row 1"),
    (f"fit @long_y.npz {FIT}", "a number or a text for each input, shape (2,), got shape (3,)"),
    (f"fit @flat.npz {FIT}", "must hold numbers of shape (n, …) with features, got shape (2,)"),
    ("fit @widths.npz --out @x.npz", "as many features in x_test as in x_train, got 3 and 2"),
    (f"fit @widths.npz {FIT}", "--test-fraction must be left out for"),
    ("predict @nowhere.npz @table.csv", "there is no file"),
    ("predict @table.csv @table.csv", "must be a whole NPZ file"),
    ("predict @truncated.npz @table.csv", "must be a whole NPZ file"),
    ("predict @arrays.npz @table.csv", "must be a model that regression.save wrote"),
    ("predict @model.npz @nan.csv", "must have the features 'c', got the columns 'a', 'b', 'y'"),
    ("predict @model.npz @two.npz", "must have the 3 features that the model was trained on"),
    ("predict @model.npz @table.csv --label age", "must have the label column 'age'"),
    ("predict @model.npz digits --label y", "--label must be left out for the data set"),
    ("predict @model.npz @table.csv --out @no/p.csv", "--out must be in a folder that exists"),
    ("spectrum --gamma 400", "every α is zero"),
    ("regime --gamma 400", "every α is zero"),
    ("reproduce parity flight", "CLAIM must be one of parity, minimax, got 'flight'"),
    ("reproduce --dataset svhn", "--dataset must be one of digits, mnist, cifar10, cifar100"),
]


@pytest.mark.parametrize(("line", "message"), WRONG_WORDS)
def test_words_that_are_wrong_are_refused_in_one_line(line, message, files, capsys):
    with pytest.raises(SystemExit) as error:
        cli.main(_words(line, files.folder))
    assert error.value.code == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert message in printed.err
    assert printed.err.count("\n") == 1
    command = [word for word in line.split()[:1] if word in COMMANDS]
    assert printed.err.startswith(" ".join(["nt-residual", *command]) + ": error: ")
    assert printed.err.endswith("; see --help\n")


@pytest.mark.parametrize(("line", "message"), WRONG_INPUT)
def test_input_that_is_wrong_is_refused_in_one_line(line, message, wrong, capsys):
    assert cli.main(_words(line, wrong)) == 2
    text = capsys.readouterr().err
    assert message in text
    assert text.count("\n") == 1
    assert text.startswith(f"nt-residual {line.split()[0]}: error: ")
    assert "Traceback" not in text
    assert not (wrong / "x.npz").exists()


def test_debug_shows_where_an_error_comes_from(wrong, capsys):
    assert cli.main(_words(f"fit @nan.csv {FIT} --debug", wrong)) == 2
    text = capsys.readouterr().err
    assert "Traceback" in text
    assert "column 'b' must hold finite numbers" in text


def test_a_run_that_fails_has_another_status_than_wrong_input(files, monkeypatch, capsys):
    def fail(*_, **__):
        raise RuntimeError("out of\n  luck")

    monkeypatch.setattr("nt_residual.theory.regime", fail)
    assert cli.main(["regime"]) == 1
    text = capsys.readouterr().err
    assert text == "nt-residual: RuntimeError: out of luck (--debug shows where)\n"
    assert cli.main(["regime", "--debug"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_a_computation_that_fails_is_not_taken_for_wrong_input():
    with pytest.raises(np.linalg.LinAlgError), options.wrong_input():
        raise np.linalg.LinAlgError("singular")
    with pytest.raises(options.InputError), options.wrong_input():
        raise ValueError("wrong")


def test_an_interruption_ends_with_its_status(monkeypatch, capsys):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("nt_residual.theory.regime", interrupt)
    assert cli.main(["regime"]) == 130
    assert "interrupted, nothing was written" in capsys.readouterr().err


def test_a_reader_that_has_gone_away_is_no_error():
    read, write = os.pipe()
    os.close(read)
    code = """
import sys
from nt_residual.cli import doctor, main
doctor.run = lambda chosen: print("versions") or 0
sys.exit(main(["doctor"]))
"""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, check=False)
    os.close(write)
    assert (done.returncode, done.stderr) == (1, b"")


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_every_command_has_an_example(command, capsys, monkeypatch, tmp_path):
    monkeypatch.setattr("nt_residual.cli.bench.ROOT", tmp_path)
    try:
        status = cli.main([command, "--help"])
    except SystemExit as error:
        status = error.code
    text = capsys.readouterr().out
    assert status == 0
    assert f"example: nt-residual {command}" in text
    assert "(default: None)" not in text
    if command == "reproduce":
        assert "parity            Odd harmonics" in text


def test_help_imports_nothing_that_takes_time():
    done = run_python("""
import sys
from nt_residual import cli
try:
    cli.main(["fit", "--help"])
except SystemExit:
    pass
slow = {"jax", "numpy", "scipy", "sklearn", "matplotlib", "flax"} & set(sys.modules)
sys.exit(f"imported {slow}" if slow else 0)
""")
    assert done.returncode == 0, done.stderr
    assert "nt-residual fit" in done.stdout


def test_the_doctor_shows_versions_devices_and_what_works(capsys):
    assert cli.main(["doctor"]) == 0
    text = capsys.readouterr().out
    for word in ("python", "jaxlib", "neural-tangents  0.6.5", "devices", "float64", "stax"):
        assert word in text
    assert "tensorflow" in text
    assert "not imported" in text
