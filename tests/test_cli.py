"""The command line: help worth reading, errors on one line, statuses."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from threadis import __version__, config

Run = Callable[..., "subprocess.CompletedProcess[str]"]


def test_the_version(run_threadis: Run) -> None:
    assert run_threadis("--version").stdout == f"threadis {__version__}\n"


@pytest.mark.parametrize("command", ["serve", "plan"])
def test_the_help_is_complete(run_threadis: Run, command: str) -> None:
    text = run_threadis(command, "--help").stdout
    for name, _, knob in config.knobs():
        assert (f"--{name.replace('_', '-')} " in text) == knob.is_flag
    for words in ("--config", "--set", "Listening", "Cores", "Data", "Clients", "Stock server"):
        assert words in text
    for default in ("127.0.0.1", "6379", "auto", "threadis-data", "noeviction", "10000", "300"):
        assert f"(default: {default})" in text
    # argv is public, so a password has no flag
    assert "--requirepass " not in text


def test_the_help_of_all(run_threadis: Run) -> None:
    text = run_threadis("--help").stdout
    assert "serve" in text
    assert "plan" in text
    assert "threadis serve --port 7000 --instances 4" in run_threadis("serve", "--help").stdout


def test_the_plan_is_printed_and_nothing_started(run_threadis: Run, tmp_path: Path) -> None:
    done = run_threadis("plan", "--instances", "3", "--workers", "2")
    assert done.returncode == 0
    for name in ("worker 0", "worker 1", "instance 0", "instance 1", "instance 2"):
        assert name in done.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--port", "x"], "threadis: --port: 'x' is neither auto nor from 0 to 65535\n"),
        (["--set", "port=1"], "threadis: set port: threadis decides this; use --port instead\n"),
        (["--config", "none.toml"], "threadis: config: cannot read none.toml: No such file"),
    ],
)
def test_a_wrong_value_is_one_line_and_status_2(
    run_threadis: Run, tmp_path: Path, arguments: list[str], words: str
) -> None:
    done = run_threadis("serve", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(words)
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_flag_is_status_2(run_threadis: Run) -> None:
    done = run_threadis("serve", "--prot", "1")
    assert done.returncode == 2
    assert "--port" in done.stderr


def test_what_cannot_be_started_is_one_line_and_status_1(run_threadis: Run, tmp_path: Path) -> None:
    done = run_threadis("serve", "--port", "auto", "--server", str(tmp_path / "none"))
    assert done.returncode == 1
    assert done.stderr.startswith("threadis: cannot run ")
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
