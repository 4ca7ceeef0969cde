"""Child processes: their end is noticed, they die with us, the kernel's word counts."""

import asyncio
import os
import random
import signal
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from threadis.system.process import (
    FIRST_PAUSE,
    HEALTHY,
    JITTER,
    LONGEST_ABSENCE,
    LONGEST_PAUSE,
    Activity,
    Backoff,
    Child,
    activity,
    wrong_affinity,
)
from waiting import alive, until, until_async


def test_the_end_of_a_child_is_noticed() -> None:
    async def run() -> None:
        assert await Child(["sh", "-c", "exit 3"]).exited == 3
        child = Child(["sleep", "60"])
        child.send(signal.SIGKILL)
        assert await child.exited == -9
        child.send(signal.SIGKILL)  # too late, and no error

    asyncio.run(run())


def test_its_input_log_cpu_and_session(tmp_path: Path) -> None:
    cpu = min(os.sched_getaffinity(0))

    async def run() -> None:
        child = Child(["sh", "-c", "cat; exec sleep 60"], cpus=[cpu], stdin=b"hello\n",
                      log=tmp_path / "log")  # fmt: skip
        await until_async(lambda: "hello" in (tmp_path / "log").read_text(), "its output")
        assert os.sched_getaffinity(child.pid) == {cpu}
        assert wrong_affinity(child.pid, [cpu]) == set()
        assert wrong_affinity(child.pid, [cpu + 1]) == {cpu}
        assert os.getsid(child.pid) == child.pid
        assert (tmp_path / "log").stat().st_mode & 0o777 == 0o600
        child.send(signal.SIGKILL)
        await child.exited

    asyncio.run(run())


def test_nothing_else_is_inherited(tmp_path: Path) -> None:
    async def run() -> list[str]:
        with (tmp_path / "open").open("w") as file:
            os.set_inheritable(file.fileno(), True)
            script = "ls /proc/self/fd"  # its own three, and the one that reads the directory
            child = Child(["sh", "-c", script], log=tmp_path / "log")
            await child.exited
        return (tmp_path / "log").read_text().split()

    assert asyncio.run(run()) == ["0", "1", "2", "3"]


def test_grandchildren_die_with_the_child(tmp_path: Path) -> None:
    async def run() -> int:
        child = Child(["sh", "-c", "sleep 60 & echo $!; wait"], log=tmp_path / "log")
        await until_async(lambda: (tmp_path / "log").read_text().strip(), "the pid")
        child.send(signal.SIGKILL)
        await child.exited
        return int((tmp_path / "log").read_text())

    grandchild = asyncio.run(run())
    until(lambda: not alive(grandchild), "the grandchild dies")


def test_a_child_dies_with_a_killed_parent() -> None:
    script = (
        "import asyncio, os\n"
        "from threadis.system.process import Child\n"
        "async def run():\n"
        "    print(Child(['sleep', '60']).pid, flush=True)\n"
        "    os.kill(os.getpid(), 9)\n"
        "asyncio.run(run())\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
    assert done.returncode == -9
    until(lambda: not alive(int(done.stdout)), "the child dies")


@pytest.mark.parametrize(
    ("was_of_use", "longest"), [(False, LONGEST_PAUSE), (True, LONGEST_ABSENCE)]
)
def test_the_back_off(was_of_use: bool, longest: float) -> None:
    backoff = Backoff(random.Random(1))
    expected = FIRST_PAUSE
    for _ in range(20):
        pause = backoff.after(1.0, was_of_use=was_of_use)
        assert expected * (1 - JITTER) <= pause <= expected * (1 + JITTER)
        expected = min(longest, expected * 2)
    assert backoff.after(HEALTHY, was_of_use=was_of_use) <= FIRST_PAUSE * (1 + JITTER)


@pytest.mark.parametrize(
    ("state", "ticks", "is_stopped"),
    [("T", 5, True), ("t", 5, True), ("S", 5, True), ("S", 6, False), ("R", 5, False),
     ("D", 5, False), ("Z", 0, False)],
)  # fmt: skip
def test_silence_is_judged_by_the_kernel(state: str, ticks: int, is_stopped: bool) -> None:
    assert Activity(state, ticks).is_stopped(Activity("S", 5)) == is_stopped


def test_the_kernels_word() -> None:
    assert activity(os.getpid()).state == "R"
    child = subprocess.Popen(["sleep", "60"])
    child.send_signal(signal.SIGSTOP)
    until(lambda: activity(child.pid).state == "T", "it is stopped")
    child.kill()
    child.wait()
    assert activity(child.pid).state == "Z"


def test_no_module_comes_from_the_directory_in_which_it_is_started(tmp_path: Path) -> None:
    for name in ("queue", "random", "select"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('not ours')")
    script = Path(sysconfig.get_path("scripts")) / "threadis"
    words = [str(script), "serve", "--port", "auto", "--instances", "1"]
    with subprocess.Popen(
        [*words, "--dir", "data"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as running:
        assert running.stdout
        try:
            known = next((line for line in running.stdout if "127.0.0.1:" in line), "it has ended")
        finally:
            running.terminate()
    assert "serving" in known
