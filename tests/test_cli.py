"""The command line: help worth reading, errors on one line, statuses."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from threadis import __version__
from threadis.config import config
from threadis.supervisor.server import ServerBinary

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
    done = run_threadis("plan", "--instances", "3", "--workers", "2", "--dir", "d")
    assert done.returncode == 0
    for name in ("worker 0", "worker 1", "instance 0", "instance 1", "instance 2"):
        assert name in done.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--port", "x"], "threadis: --port: 'x' is neither auto nor from 0 to 65535\n"),
        (["--set", "save="], "threadis: set save: threadis controls this; use --save instead\n"),
        (["--set", "port=1"], "threadis: set port: threadis controls this; use --port instead\n"),
        (["--host", "127.0.0.1,::1"], "threadis: --host: separate the addresses with spaces"),
        (["--requirepass-file", "/no/x"], "threadis: requirepass-file: cannot read /no/x: No such"),
        (["--prot", "1"], "threadis: No such option: --prot"),
        (["--port"], "threadis: Option '--port' requires an argument"),
        (["extra"], "threadis: Got unexpected extra argument"),
        (["--config", "none.toml"], "threadis: config: cannot read "),
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


def test_an_unknown_flag_says_which_there_are(run_threadis: Run) -> None:
    done = run_threadis("serve", "--prot", "1")
    assert done.returncode == 2
    assert "--port" in done.stderr
    assert "see threadis serve --help" in done.stderr


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("port 6379\nbind 127.0.0.1\n", "this is not a redis.conf: write NAME = VALUE"),
        ("[server]\nport = 7702\n", "has a table [server]; write its lines at the top"),
        ('host = "127.0.0.1, ::1"\n', "separate the addresses with spaces"),
        ("host = [1]\n", "host: 1 is not text"),
        ("host = []\n", "host: no address"),
    ],
)
def test_a_wrong_file_says_what_to_write(
    run_threadis: Run, tmp_path: Path, content: str, words: str
) -> None:
    (tmp_path / "t.toml").write_text(content)
    done = run_threadis("plan", "--config", "t.toml")
    assert done.returncode == 2
    assert words in done.stderr
    assert done.stderr.count("\n") == 1


def help_in(command: str, columns: int) -> str:
    return subprocess.run(
        [sys.executable, "-m", "threadis", *command.split(), "--help"],
        env={**os.environ, "COLUMNS": str(columns)}, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip


@pytest.mark.parametrize(
    "command",
    ["", "serve", "plan", "where", "bench", "bench run", "bench scale", "bench figures"],
)
def test_help_fits_80_columns_and_cuts_nothing(command: str) -> None:
    wide, text = (help_in(command, columns) for columns in (100, 80))
    assert max(map(len, text.splitlines())) <= 80
    for line in wide.splitlines():
        if line.lstrip().startswith("threadis "):  # an example
            assert line in text.splitlines()
    usual = re.sub(r",\.\.\.|\[ARGS\]\.\.\.|key:0\.\.\.", "", text)
    for cut in ("\N{HORIZONTAL ELLIPSIS}", "...", "<bool", "<str", "<int", "<float", "<path"):
        assert cut not in usual


def test_without_arguments_the_help_is_shown(run_threadis: Run) -> None:
    assert run_threadis().stdout == run_threadis("--help").stdout


@pytest.mark.parametrize("directive", ["loglevel=nonsense", "nope=1", "loadmodule=/nope.so"])
def test_what_the_server_refuses_is_said_once(
    run_threadis: Run, directive: str, stock_server: ServerBinary
) -> None:
    flags = ["--port", "auto", "--dir", "d", "--instances", "3", "--server", stock_server.path]
    done = run_threadis("serve", *flags, "--set", directive)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1, done.stderr
    assert "no instance starts" in done.stderr
    assert directive.partition("=")[2] in done.stderr
    hint = "loadmodule" if directive.startswith("loadmodule") else ""
    assert done.stderr.endswith(f"; check --set {hint}".rstrip() + "\n")
    assert len(done.stderr) < 400
    assert "overcommit" not in done.stderr


def test_what_cannot_be_started_is_one_line_and_status_1(run_threadis: Run, tmp_path: Path) -> None:
    done = run_threadis("serve", "--port", "auto", "--server", str(tmp_path / "none"))
    assert done.returncode == 1
    assert done.stderr.startswith("threadis: cannot run ")
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
