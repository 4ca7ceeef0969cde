"""Owns the plan: how many workers and instances there are, and which CPU each runs on (pure)."""

import dataclasses

from threadis.config import MAX_INSTANCES, MAX_WORKERS
from threadis.machine import Cpu, Machine, usable_cpus

WORKERS_SHARE = 7 / 12  # of the CPUs, where nobody says otherwise


@dataclasses.dataclass(frozen=True)
class Plan:
    """Which CPUs each process or thread may run on, and what is worth saying about it."""

    worker_cpus: list[list[int]]
    instance_cpus: list[list[int]]
    notes: list[str]
    is_limited: bool = False  # by a quota: who waits awake uses it up

    def spins(self) -> list[bool]:
        """Whether each worker has its CPUs to itself, so that it may wait awake."""
        everyone = [cpu for cpus in self.worker_cpus + self.instance_cpus for cpu in cpus]
        return [
            not self.is_limited and all(everyone.count(cpu) == 1 for cpu in cpus)
            for cpus in self.worker_cpus
        ]

    def render(self) -> list[str]:
        """The plan as lines of text."""
        rows = [(f"worker {i}", cpus) for i, cpus in enumerate(self.worker_cpus)]
        rows += [(f"instance {i}", cpus) for i, cpus in enumerate(self.instance_cpus)]
        by_cpu: dict[int, list[str]] = {}
        for name, cpus in rows:
            for cpu in cpus:
                by_cpu.setdefault(cpu, []).append(name)
        lines = [f"CPU {cpu:>3}   {', '.join(by_cpu[cpu])}" for cpu in sorted(by_cpu)]
        return lines + [f"note: {note}" for note in self.notes]


def make(machine: Machine, instances: int | None = None, workers: int | None = None) -> Plan:
    """A plan for this machine; None lets it choose."""
    cpus = usable_cpus(machine)
    instances, workers = _counts(len(cpus), instances, workers)
    chosen = _in_node_order(cpus[: workers + instances])
    plan = Plan([], [], [], is_limited=machine.quota is not None)
    total = workers + instances
    for place in range(total):
        cpu = [chosen[place % len(chosen)].index]
        # Spread the workers evenly, so that each NUMA node holds both kinds
        is_worker = (place + 1) * workers // total > place * workers // total
        (plan.worker_cpus if is_worker else plan.instance_cpus).append(cpu)
    plan.notes.extend(_notes(machine, cpus, total))
    return plan


def _counts(k: int, instances: int | None, workers: int | None) -> tuple[int, int]:
    """How many of each for ``k`` CPUs.

    A command costs a worker four times as much as an instance when clients do not pipeline, and
    three quarters as much at a depth of 16. ``WORKERS_SHARE`` loses equally little in both cases,
    beside the best split of each: ``docs/decisions/workers-and-instances.md``. Two instances at
    least, since one worker can feed them and their number is hard to change later.
    """
    if workers is None:
        rest = k - instances if instances else min(round(k * WORKERS_SHARE), k - 2)
        workers = min(max(1, rest), MAX_WORKERS)
    if instances is None:
        instances = 2 if k == 2 else max(1, k - workers)
    return min(instances, MAX_INSTANCES), workers


def _in_node_order(cpus: list[Cpu]) -> list[Cpu]:
    """Neighbours together: by node, then physical cores before their second threads."""
    return sorted(cpus, key=lambda cpu: (cpu.node, cpu.sibling_rank, cpu.index))


def _notes(machine: Machine, cpus: list[Cpu], total: int) -> list[str]:
    """What a user may not expect."""
    notes = []
    if len(cpus) < len(machine.cpus) and machine.quota is not None:
        notes.append(f"the cgroup grants {machine.quota:g} of {len(machine.cpus)} CPUs")
    if total > len(cpus):
        notes.append(f"{total} workers and instances share {len(cpus)} CPU(s)")
    elif any(cpu.sibling_rank for cpu in cpus[:total]):
        notes.append("some share a physical core (second threads are in use)")
    return notes
