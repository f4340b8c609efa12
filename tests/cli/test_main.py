import os
import subprocess
import sys
import unittest.mock

import pytest
from helpers import run_python

from nt_residual import cli, data
from nt_residual.experiments import reproduce

COMMANDS = ["demo", "regime", "spectrum", "reproduce", "bench", "doctor"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "the following arguments are required: command"),
        ("fly", "invalid choice: 'fly'"),
        ("regime --fast", "unrecognized arguments: --fast"),
        ("regime --trained=none", "argument --trained: invalid choice: 'none'"),
        ("demo --depth=1.5", "argument --depth: invalid depth value: '1.5'"),
        ("spectrum --dim=many", "argument --dim: invalid int value: 'many'"),
        ("reproduce --quick --full", "--full: not allowed with argument --quick"),
    ],
)
def test_unknown_words_are_refused(line, message, capsys):
    with pytest.raises(SystemExit, match="2"):
        cli.main(line.split())
    printed = capsys.readouterr()
    assert printed.out == ""
    assert message in printed.err


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("demo --depth=0", "depth must be at least 1, got 0"),
        ("demo --n-train=5", "n_train must be 1437, or between 10 and 1427"),
        ("regime --gamma=400", "every α is zero"),
        ("spectrum --dim=1", "dim must be at least 2, got 1"),
        ("spectrum --out=no/s.csv", "No such file or directory: 'no/s.csv'"),
        ("reproduce parity flight", "claims must be 'constant_alpha', 'slow_decay',"),
        (
            "reproduce --dataset=svhn",
            "dataset must be 'digits', 'mnist', 'fashion_mnist', 'cifar10' or 'cifar100'",
        ),
    ],
)
def test_values_that_are_wrong_are_refused_in_one_line(
    line, message, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    assert cli.main(line.split()) == 1
    text = capsys.readouterr().err
    assert text.startswith(f"nt-residual {line.split()[0]}: error: ")
    assert message in text
    assert text.count("\n") == 1


def test_debug_shows_where_an_error_comes_from_and_interruptions_have_a_status(monkeypatch, capsys):
    fail = unittest.mock.Mock(side_effect=RuntimeError("out of\n  luck"))
    monkeypatch.setattr("nt_residual.theory.regime", fail)
    assert cli.main(["regime"]) == 1
    expected = "nt-residual regime: error: RuntimeError: out of luck (--debug shows where)\n"
    assert capsys.readouterr().err == expected
    assert cli.main(["regime", "--debug"]) == 1
    assert "Traceback" in capsys.readouterr().err
    fail.side_effect = KeyboardInterrupt
    assert cli.main(["regime"]) == 130
    assert "interrupted" in capsys.readouterr().err


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


def test_the_help_of_every_command_has_an_example(capsys):
    for command in {*COMMANDS} - {"bench"}:
        with pytest.raises(SystemExit, match="0"):
            cli.main([command, "--help"])
        text = " ".join(capsys.readouterr().out.split())
        assert f"example: nt-residual {command}" in text
        assert "(default: None)" not in text
        if command == "reproduce":
            assert all(name in text for name in (*reproduce.CLAIMS, *data.NAMES))


def test_help_lists_the_commands_and_imports_nothing_slow():
    done = run_python("""
import sys
from nt_residual import cli
try:
    cli.main(["--help"])
except SystemExit:
    pass
slow = {"jax", "numpy", "scipy", "sklearn", "matplotlib", "flax"} & set(sys.modules)
sys.exit(f"imported {slow}" if slow else 0)
""")
    assert done.returncode == 0, done.stderr
    assert all(f"\n    {command}" in done.stdout for command in COMMANDS)


def test_the_doctor_shows_versions_devices_and_what_works(capsys):
    assert cli.main(["doctor"]) == 0
    text = capsys.readouterr().out
    for word in ("python", "jaxlib", "neural-tangents  0.6.5", "devices", "float64", "stax"):
        assert word in text
    assert "not imported" in text
