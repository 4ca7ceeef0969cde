"""The plan: how many workers and instances there are, and which CPU each runs on."""

import dataclasses
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from threadis.config.config import MAX_INSTANCES, MAX_WORKERS
from threadis.errors import ConfigError
from threadis.system.machine import Cpu, Machine, usable_cpus

NOTHING: Mapping[int, int] = MappingProxyType({})
WORKERS_SHARE = 7 / 12  # of the CPUs, by default


@dataclasses.dataclass(frozen=True)
class Plan:
    """The CPUs that each process or thread is pinned to (none: any), and notes for the user."""

    worker_cpus: list[list[int]]
    instance_cpus: list[list[int]]
    notes: list[str]
    is_limited: bool = False  # by a quota, which busy-waiting would use up
    shared: frozenset[int] = frozenset()  # CPUs that others are tied to, too

    def spins(self) -> list[bool]:
        """Return whether each worker has its CPUs to itself, so that it may busy-wait."""
        everyone = [cpu for cpus in self.worker_cpus + self.instance_cpus for cpu in cpus]
        own = {cpu for cpu in everyone if everyone.count(cpu) == 1} - self.shared
        return [
            not self.is_limited and cpus != [] and own.issuperset(cpus) for cpus in self.worker_cpus
        ]

    def render(self) -> list[str]:
        """Format the plan as lines of text."""
        rows = [(f"worker {i}", cpus) for i, cpus in enumerate(self.worker_cpus)]
        rows += [(f"instance {i}", cpus) for i, cpus in enumerate(self.instance_cpus)]
        by_cpu: dict[int, list[str]] = {}
        for name, cpus in rows:
            for cpu in cpus:
                by_cpu.setdefault(cpu, []).append(name)
        free = [name for name, cpus in rows if not cpus]
        lines = [f"any CPU   {', '.join(free)}"] if free else []
        lines += [f"CPU {cpu:>3}   {', '.join(by_cpu[cpu])}" for cpu in sorted(by_cpu)]
        return lines + [f"note: {note}" for note in self.notes]


def make(
    machine: Machine,
    instances: int | None = None,
    workers: int | None = None,
    pin: Sequence[int] | None = None,
    taken: Mapping[int, int] = NOTHING,
) -> Plan:
    """Make a plan for this machine; None lets it choose.

    ``taken``: how many other threads are pinned to a CPU; such CPUs are used last. Under a CPU
    quota nothing is pinned: all containers of a machine would choose the same CPUs.
    """
    usable = usable_cpus(machine)
    if pin:
        usable = _named(machine, pin)
    instances, workers = _counts(len(usable), instances, workers)
    total = workers + instances
    is_cut = machine.quota is not None and machine.quota < len(machine.cpus)
    is_tied = bool(pin) or (pin is None and not is_cut)
    cpus = sorted(usable, key=lambda cpu: taken.get(cpu.index, 0))
    chosen = _in_node_order(cpus[:total])
    shared = frozenset(cpu.index for cpu in chosen if is_tied and taken.get(cpu.index))
    plan = Plan([], [], [], is_limited=machine.quota is not None, shared=shared)
    for place in range(total):
        cpu = [chosen[place % len(chosen)].index] if is_tied else []
        # Spread the workers evenly, so that each NUMA node holds both kinds
        is_worker = (place + 1) * workers // total > place * workers // total
        (plan.worker_cpus if is_worker else plan.instance_cpus).append(cpu)
    plan.notes.extend(_notes(machine, usable, total, is_tied=is_tied))
    if shared:
        words = ", ".join(map(str, sorted(shared)))
        plan.notes.append(f"other processes are pinned to CPU {words}, too; see --pin")
    return plan


def _named(machine: Machine, pin: Sequence[int]) -> list[Cpu]:
    """Return the CPUs of ``--pin``."""
    known = {cpu.index: cpu for cpu in machine.cpus}
    for index in pin:
        if index not in known:
            usable = ",".join(map(str, known))
            raise ConfigError(f"pin: CPU {index} is not one that this process may use ({usable})")
    return [known[index] for index in pin]


def _counts(k: int, instances: int | None, workers: int | None) -> tuple[int, int]:
    """Return how many workers and instances to run on ``k`` CPUs.

    A command costs a worker four times as much as an instance if clients do not pipeline, and three
    quarters as much at a depth of 16. ``WORKERS_SHARE`` loses equally little in both cases,
    compared with the best split of each: ``docs/decisions/workers-and-instances.md``. At least two
    instances, because one worker can feed them and their number is hard to change later.
    """
    if workers is None:
        rest = k - instances if instances else min(round(k * WORKERS_SHARE), k - 2)
        workers = min(max(1, rest), MAX_WORKERS)
    if instances is None:
        instances = 2 if k == 2 else max(1, k - workers)
    return min(instances, MAX_INSTANCES), workers


def _in_node_order(cpus: list[Cpu]) -> list[Cpu]:
    """Sort CPUs by node, then physical cores before their second threads."""
    return sorted(cpus, key=lambda cpu: (cpu.node, cpu.sibling_rank, cpu.index))


def _notes(machine: Machine, cpus: list[Cpu], total: int, *, is_tied: bool) -> list[str]:
    """Return what the user may not expect."""
    notes = []
    if len(cpus) < len(machine.cpus) and machine.quota is not None:
        notes.append(f"the cgroup grants {machine.quota:g} of {len(machine.cpus)} CPUs")
    if total > len(cpus):
        notes.append(f"{total} workers and instances share {len(cpus)} CPU(s)")
    elif is_tied and any(cpu.sibling_rank for cpu in cpus[:total]):
        notes.append("some share a physical core (second threads are in use)")
    return notes
