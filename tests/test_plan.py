"""The plan of the cores, by tables; the machine is read from files like the kernel's."""

import os
from pathlib import Path

import pytest

from threadis.errors import ConfigError
from threadis.supervisor import plan
from threadis.system import machine
from threadis.system.machine import Cpu, Machine


def flat(count: int) -> Machine:
    return Machine(tuple(Cpu(index) for index in range(count)))


@pytest.mark.parametrize(
    ("cpus", "instances", "workers", "expected"),
    [
        # CPUs, asked for, (instances, workers) planned
        (1, None, None, (1, 1)),
        (2, None, None, (2, 1)),
        (3, None, None, (2, 1)),
        (4, None, None, (2, 2)),
        (5, None, None, (2, 3)),
        (8, None, None, (3, 5)),
        (12, None, None, (5, 7)),
        (64, None, None, (27, 37)),
        (512, None, None, (256, 128)),
        (8, 2, None, (2, 6)),
        (8, 6, None, (6, 2)),
        (2, 4, None, (4, 1)),
        (8, None, 2, (6, 2)),
        (2, None, 4, (2, 4)),
        (1, 256, 128, (256, 128)),
    ],
)
def test_how_many(
    cpus: int, instances: int | None, workers: int | None, expected: tuple[int, int]
) -> None:
    made = plan.make(flat(cpus), instances, workers)
    assert (len(made.instance_cpus), len(made.worker_cpus)) == expected


def test_each_on_its_own_cpu_when_there_are_enough() -> None:
    made = plan.make(flat(8))
    used = [cpu for cpus in made.worker_cpus + made.instance_cpus for cpu in cpus]
    assert sorted(used) == list(range(8))
    assert made.notes == []


def test_sharing_is_said() -> None:
    made = plan.make(flat(2), instances=4)
    assert made.notes == ["5 workers and instances share 2 CPU(s)"]
    loads = [sum([cpu] in (cpus,) for cpus in made.worker_cpus + made.instance_cpus)
             for cpu in (0, 1)]  # fmt: skip
    assert sorted(loads) == [2, 3]
    assert made.render() == [
        "CPU   0   worker 0, instance 0, instance 2",
        "CPU   1   instance 1, instance 3",
        "note: 5 workers and instances share 2 CPU(s)",
    ]


def test_each_node_holds_both_kinds() -> None:
    made = plan.make(Machine(tuple(Cpu(index, node=index // 4) for index in range(8))))
    for node in (range(4), range(4, 8)):
        assert sum(cpus[0] in node for cpus in made.worker_cpus) in (2, 3)
        assert sum(cpus[0] in node for cpus in made.instance_cpus) in (1, 2)


def test_physical_cores_come_first() -> None:
    cpus = tuple(Cpu(index, sibling_rank=index % 2) for index in range(8))
    made = plan.make(Machine(cpus), instances=2, workers=2)
    assert sorted(c for cpus in made.worker_cpus + made.instance_cpus for c in cpus) == [0, 2, 4, 6]
    assert made.notes == []
    assert plan.make(Machine(cpus)).notes == [
        "some share a physical core (second threads are in use)"
    ]


@pytest.mark.parametrize(("quota", "counted"), [(0.5, 1), (1.0, 1), (1.5, 2), (3.0, 3), (9.0, 4)])
def test_the_quota_limits_the_cpus(quota: float, counted: int) -> None:
    limited = Machine(flat(4).cpus, quota)
    assert len(machine.usable_cpus(limited)) == counted
    notes = plan.make(limited).notes
    assert any("the cgroup grants" in note for note in notes) == (counted < 4)


def used(made: plan.Plan) -> list[int]:
    return sorted(cpu for cpus in made.worker_cpus + made.instance_cpus for cpu in cpus)


@pytest.mark.parametrize("quota", [0.5, 1.0, 4.0, 7.5])
def test_under_a_quota_nobody_is_tied(quota: float) -> None:
    """Else all containers of a machine would be tied to the same few CPUs."""
    made = plan.make(Machine(flat(64).cpus, quota))
    assert used(made) == []
    assert not any(made.spins())
    assert made.render()[0].startswith("any CPU   worker 0")
    assert used(plan.make(Machine(flat(4).cpus, 4.0))) == [0, 1, 2, 3]
    assert used(plan.make(Machine(flat(64).cpus, 4.0), pin=[60, 61, 62, 63])) == [60, 61, 62, 63]


def test_cpus_that_others_are_tied_to_come_last() -> None:
    first = plan.make(flat(8), 2, 2)
    second = plan.make(flat(8), 2, 2, taken=dict.fromkeys(used(first), 1))
    assert not set(used(first)) & set(used(second))
    assert second.notes == []
    third = plan.make(flat(8), 3, 3, taken=dict.fromkeys(used(first), 1))
    assert set(used(second)) < set(used(third))
    (note,) = third.notes
    assert note.startswith("other processes are pinned to CPU ")
    assert third.spins().count(False) + [
        cpus[0] in third.shared for cpus in third.instance_cpus
    ].count(True) == len(third.shared)


def test_cpus_can_be_named_or_left_to_the_kernel() -> None:
    named = plan.make(flat(8), pin=[2, 3, 7])
    assert used(named) == [2, 3, 7]
    assert len(named.worker_cpus) + len(named.instance_cpus) == 3
    free = plan.make(flat(8), pin=())
    assert used(free) == []
    assert (len(free.worker_cpus), len(free.instance_cpus)) == (5, 3)
    with pytest.raises(ConfigError, match="pin: CPU 8 is not one that this process may use"):
        plan.make(flat(8), pin=[0, 8])


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_nodes_and_siblings_are_read(tmp_path: Path) -> None:
    topology = "sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"
    write(tmp_path, {topology.format(cpu): f"{cpu % 2},{cpu % 2 + 2}\n" for cpu in range(4)})
    write(
        tmp_path,
        {
            "sys/devices/system/node/node0/cpulist": "0,2\n",
            "sys/devices/system/node/node1/cpulist": "1,3\n",
        },
    )
    assert machine.read(tmp_path, {0, 1, 2, 3}).cpus == (
        Cpu(0, 0, 0),
        Cpu(1, 1, 0),
        Cpu(2, 0, 1),
        Cpu(3, 1, 1),
    )
    # the sibling of a CPU that we may not use counts as the first
    assert machine.read(tmp_path, {2, 3}).cpus == (Cpu(2, 0, 0), Cpu(3, 1, 0))


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({}, None),
        ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/cpu.max": "max 100000\n"}, None),
        ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/cpu.max": "150000 100000\n"}, 1.5),
        # an ancestor's limit holds too
        (
            {
                "proc/self/cgroup": "0::/a/b\n",
                "sys/fs/cgroup/a/b/cpu.max": "400000 100000\n",
                "sys/fs/cgroup/a/cpu.max": "200000 100000\n",
            },
            2.0,
        ),
        # in a container the own cgroup is what is mounted
        ({"proc/self/cgroup": "0::/../x\n", "sys/fs/cgroup/cpu.max": "50000 100000\n"}, 0.5),
        (
            {
                "proc/self/cgroup": "3:cpu,cpuacct:/a\n2:cpuset:/\n",
                "sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_quota_us": "250000\n",
                "sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_period_us": "100000\n",
            },
            2.5,
        ),
        (
            {
                "proc/self/cgroup": "1:cpu:/\n0::/\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            None,
        ),
    ],
)
def test_the_quota_is_read(tmp_path: Path, files: dict[str, str], quota: float | None) -> None:
    write(tmp_path, files)
    assert machine.read(tmp_path, {0}).quota == quota


def test_cpu_lists_are_read() -> None:
    assert machine.parse_cpu_list("0-2,5,7-8\n") == [0, 1, 2, 5, 7, 8]
    assert machine.parse_cpu_list("\n") == []


def test_this_machine_is_read() -> None:
    assert {cpu.index for cpu in machine.read().cpus} == os.sched_getaffinity(0)


def test_only_who_has_a_cpu_to_itself_may_wait_awake() -> None:
    assert plan.make(flat(8)).spins() == [True] * 5
    assert plan.make(flat(2)).spins() == [False]
    assert plan.make(flat(4), instances=2, workers=3).spins() == [True, True, False]
    limited = Machine(tuple(Cpu(index) for index in range(8)), quota=6.0)
    assert not any(plan.make(limited).spins())
