"""The load generator and ``threadis bench`` against real servers."""

import contextlib
import io
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import psutil
import pytest
from rich.console import Console

from threadis.bench import cpu, figures, processes, scale_table, table
from threadis.bench.errors import BenchError
from threadis.bench.idle import allow_connections, measure_idle
from threadis.bench.load import Load
from threadis.bench.measure import Case, alternate, started, steps
from threadis.bench.report import Report, rows
from threadis.bench.scale import ScaleReport
from threadis.bench.targets import Setup, Target, bare, find_port
from threadis.supervisor.server import find
from waiting import children, until

BENCH = "from threadis.bench.command import app; app()"
ANYWHERE = ["--server-cpu", "", "--load-cpu", ""]  # the machine may have one CPU
BRIEF = ["--seconds", "0.1", "--repeats", "1"]
SHORT = [*BRIEF, "--keys", "500", "--connections", "4"]

SETUP = Setup(server=find().path)
LOAD = Load(address="", connections=5, key_count=500, seconds=0.1, warmup=0.02)


def bench(command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", BENCH, command, *ANYWHERE, *arguments],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )


@pytest.fixture
def server() -> Iterator[Target]:
    with bare(SETUP) as target:
        yield target


def aimed(target: Target, **changes: object) -> Load:
    return msgspec.structs.replace(LOAD, address=target.address, **changes)


@pytest.mark.parametrize("mix", ["get", "set", "mixed:0.3", "mget:10", "mset:10"])
@pytest.mark.parametrize("changes", [{}, {"private_keys": True, "zipf": 0.99, "value_size": 2000}])
def test_a_load_is_clean_on_a_real_server(
    server: Target, mix: str, changes: dict[str, object]
) -> None:
    load = aimed(server, mix=mix, threads=2, **changes)
    assert load.preload().commands_total == LOAD.key_count
    result = load.run()
    assert (result.errors, result.examples) == (0, [])
    assert result.commands_total >= result.commands > 0
    assert 0 < result.p50_us <= result.p99_us <= result.p999_us <= result.max_us
    assert result.load_cpu_seconds > 0


def test_a_load_that_makes_no_sense_is_refused(server: Target) -> None:
    with pytest.raises(OSError, match="value_size: at least 16"):
        aimed(server, value_size=15).run()
    with pytest.raises(OSError, match="mix: 'del' is not get"):
        aimed(server, mix="del").run()
    with pytest.raises(OSError, match="neither host:port nor a path"):
        Load(address="nowhere").run()


def test_an_open_load_keeps_its_rate(server: Target) -> None:
    load = aimed(server, rate=2000.0, connections=20, pipeline=1, seconds=0.5)
    load.preload()
    result = load.run()
    assert (result.errors, result.examples) == (0, [])
    assert 50 < result.commands <= 1500  # 1,000 are due; a busy machine may be late
    assert result.p50_us > 0
    with pytest.raises(OSError, match="rate: 1 to"):
        aimed(server, rate=0.0).run()


def test_ctrl_c_ends_a_load(server: Target) -> None:
    load = aimed(server, preloaded=False, seconds=40.0)
    timer = threading.Timer(0.3, signal.raise_signal, [signal.SIGINT])
    timer.start()
    begin = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        load.run()
    timer.join()
    assert time.monotonic() - begin < 10


def test_cpu_time_agrees_with_schedstat_and_outlives_threads() -> None:
    def burn() -> None:
        end = time.thread_time() + 0.05
        while time.thread_time() < end:
            pass

    def schedstat() -> float:
        tasks = Path(f"/proc/{os.getpid()}/task").glob("*/schedstat")
        return sum(int(task.read_text().split()[0]) for task in tasks) * 1e-9

    meter = cpu.CpuMeter({"me": [os.getpid()]})
    before = schedstat()
    burn()
    burnt = meter.us_per_command(1)["total"] * 1e-6
    assert burnt == pytest.approx(schedstat() - before, abs=0.02)
    thread = threading.Thread(target=burn, daemon=True)
    thread.start()
    thread.join()
    assert meter.us_per_command(1)["total"] * 1e-6 >= burnt + 0.05


def test_a_server_that_died_gives_no_figure() -> None:
    with (
        processes.scratch() as directory,
        processes.running("sleep", ["sleep", "30"], directory, []) as child,
    ):
        meter = cpu.CpuMeter({"server": [child.pid]})
        child.stop()
        with pytest.raises(BenchError, match="ended while it was measured"):
            meter.us_per_command(1)


def test_children_are_confined_and_the_parent_is_not() -> None:
    usable = os.sched_getaffinity(0)
    one = sorted(usable)[:1]
    with (
        processes.scratch() as directory,
        processes.running("sleep", ["sleep", "30"], directory, one) as child,
    ):
        assert os.sched_getaffinity(child.pid) == set(one)
        assert os.sched_getaffinity(0) == usable
    assert not psutil.pid_exists(child.pid)


def test_a_server_that_fails_says_why() -> None:
    with pytest.raises(BenchError, match=r"false ended"), bare(Setup(server="false")):
        pass


@pytest.mark.parametrize(
    ("printed", "port"),
    [
        ("plan     worker 0 on CPU 1\n", None),
        ("serving  127.0.0.1:40123   (redis-cli -p 40123)\n", 40123),
        ("listening on port 7000\n", 7000),
        ("port 0 asked for\nserving  127.0.0.1:7001\n", 7001),
    ],
)
def test_the_port_is_found_in_what_serve_prints(printed: str, port: int | None) -> None:
    assert find_port(printed) == port


def test_targets_alternate_and_ratios_are_of_one_repeat() -> None:
    case = Case(name="mixed", load=msgspec.structs.replace(LOAD, mix="mixed:0.5", pipeline=8))
    said: list[str] = []
    with started(["bare", "twemproxy"], SETUP) as targets:
        samples = list(alternate(targets, [case], 3, said.append))
    assert len(said) == steps(2, [case], 3)
    order = [sample.target for sample in samples]
    assert order == ["bare", "twemproxy", "twemproxy", "bare", "bare", "twemproxy"]
    assert [sample.result.examples for sample in samples] == [[]] * 6
    base, proxy = rows(samples)
    assert base.cpu_ratio is None
    assert proxy.cpu_ratio is not None
    assert proxy.cpu_ratio.low <= proxy.cpu_ratio.median <= proxy.cpu_ratio.high
    assert set(proxy.cpu_us) == {"proxy", "instances", "total"}
    pairs = zip(samples[1::2], samples[::2], strict=True)
    assert all(one.repeat == other.repeat for one, other in pairs)


def test_idle_connections_have_a_price(server: Target) -> None:
    allow_connections(500)
    (cost,) = measure_idle(server, 500)
    assert (cost.part, cost.connections) == ("server", 500)
    assert 500 < cost.per_connection < 100_000


def test_the_command_prints_and_saves(server: Target, tmp_path: Path) -> None:
    saved = tmp_path / "figures.json"
    arguments = ["--against", server.address, "--pid", str(server.parts["server"][0])]
    done = bench("run", *SHORT, *arguments, "--pipeline", "1,16", "--json", str(saved))
    assert done.returncode == 0, done.stderr
    assert "get P=16" in done.stdout
    report = Report.load(saved)
    (block,) = report.blocks
    assert len(block.rows) == 8
    assert report.machine.cpus
    assert block.targets[0].allocator != "unknown"
    assert all(row.cpu_us["total"] > 0 for row in block.rows)


def test_wrong_replies_fail_the_command(server: Target) -> None:
    stop = threading.Event()

    def meddle() -> None:
        stranger = aimed(server, mix="set", connections=1, preloaded=False)
        while not stop.is_set():
            stranger.run()

    thread = threading.Thread(target=meddle, daemon=True)
    thread.start()
    mixed = ["--mix", "mixed:0.5", "--private-keys", "--pipeline", "16"]
    done = bench("run", *SHORT, "--against", server.address, *mixed)
    stop.set()
    thread.join()
    assert done.returncode == 1
    assert "WRONG REPLIES" in done.stdout
    assert "Ownership, client" in done.stdout or "Order, client" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--server-cpu", "4000"], "CPU 4000 is not available"),
        (["--pipeline", "1;2"], "numbers separated by commas"),
        (["--with", "nginx"], "only cluster, envoy, io-threads, ordered, placed,"),
        (["--with", "cluster=/bin/true"], "only twemproxy, envoy, predixy may have a path"),
        (["--server", "/nowhere/redis-server"], "check --server"),
        (["--against", "127.0.0.1"], "--against 127.0.0.1: write HOST:PORT"),
        (["--against", "127.0.0.1:1"], "--against 127.0.0.1:1: no server answers there: Conn"),
        (["--against", "/no/socket"], "--against /no/socket: no server answers there: No such"),
        (["--json", "/no/x.json"], "--json /no/x.json: cannot write it: No such file"),
    ],
)
def test_a_wrong_argument_is_named(arguments: list[str], message: str) -> None:
    done = bench("run", *arguments)
    assert done.returncode == 1
    assert message in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_bench_leaves_nothing(
    server: Target, number: signal.Signals, tmp_path: Path
) -> None:
    command = [sys.executable, "-c", BENCH, "run", *ANYWHERE, "--against", server.address]
    process = subprocess.Popen(
        [*command, "--with", "twemproxy", "--seconds", "8"],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stderr=subprocess.DEVNULL,
    )
    family: list[psutil.Process] = []
    try:
        deadline = time.monotonic() + 20
        while len(family) < 4 and time.monotonic() < deadline:  # bare, two instances, nutcracker
            time.sleep(0.05)
            family = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(number)
        assert process.wait(20) != 0
        assert len(family) == 4
        assert [child for child in family if child.is_running()] == []
        assert list(tmp_path.iterdir()) == []
    finally:
        process.kill()
        process.wait()
        for survivor in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                survivor.kill()


def test_threadis_is_measured_beside_the_bare_server(tmp_path: Path) -> None:
    saved = tmp_path / "figures.json"
    done = bench(
        "run", *SHORT, "--pipeline", "16", "--mix", "get,mixed:0.5,mget:5", "--json", str(saved)
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (block,) = Report.load(saved).blocks
    parts = {row.target: row.cpu_us for row in block.rows}["threadis"]
    assert set(parts) == {"proxy", "instances", "supervisor", "total"}
    assert parts["proxy"] > 0


RESULTS = Path(__file__).parents[1] / "benchmarks" / "results"


@pytest.mark.parametrize("width", [80, 100, 120, 170])
@pytest.mark.parametrize("name", ["latency", "multikey", "clients", "full", "figures", "scale"])
def test_tables_fit_the_terminal_and_cut_nothing(name: str, width: int) -> None:
    console = Console(width=width, file=io.StringIO())
    if name == "scale":
        scale_table.render(ScaleReport.load_from(RESULTS / "scale-redis.json"), console)
    elif name == "figures":
        figures.render(figures.reached(Report.load(RESULTS / "figures.json")), console)
    else:
        table.render(Report.load(RESULTS / f"{name}.json"), console)
    assert isinstance(console.file, io.StringIO)
    shown = console.file.getvalue()
    assert "\N{HORIZONTAL ELLIPSIS}" not in shown
    assert max(map(len, shown.splitlines())) <= width
    assert "threadis" in shown or name in ("figures", "scale")
    assert re.search(r"\d \[-?\d", shown) or width < 170  # intervals, where there is room


@pytest.mark.parametrize("is_early", [True, False])
def test_an_interrupted_bench_shows_what_it_has(tmp_path: Path, *, is_early: bool) -> None:
    saved = tmp_path / "saved.json"
    flags = ["--seconds", "40" if is_early else "0.05", "--keys", "100", "--repeats", "100000"]
    process = subprocess.Popen(
        [sys.executable, "-c", BENCH, "run", *ANYWHERE, *flags, "--mix", "get", "--pipeline", "1",
         "--json", str(saved)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        if is_early:
            until(lambda: children(process.pid), "a server is started")
        else:
            until(lambda: saved.exists() and b'"result"' in saved.read_bytes(), "a sample is there")
        process.send_signal(signal.SIGINT)
        shown, errors = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130
    assert "interrupted" in errors
    assert ("this is what was measured" in errors) != is_early
    assert ("CPU ÷ bare" in shown) != is_early
