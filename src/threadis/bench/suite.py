"""A suite: blocks that are measured one after the other, and saved at once."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from threadis.bench.idle import allow_connections, make_room
from threadis.bench.machine import Machine
from threadis.bench.measure import Case, Elsewhere, Sample, alternate, started, steps
from threadis.bench.progress import progress, reporting
from threadis.bench.report import Block, Report
from threadis.bench.targets import Setup


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """One block before it is measured."""

    name: str
    setup: Setup
    targets: list[str]  # names of what is started; the first one is the baseline
    cases: list[Case]
    elsewhere: Elsewhere | None = None

    @property
    def target_count(self) -> int:
        """Return how many targets are measured."""
        return len(self.targets) + (self.elsewhere is not None)


def measure(suite: str, plans: Sequence[Plan], repeats: int, save: Path | None) -> Report:
    """Measure all blocks; after Ctrl-C raise Unfinished, with what was measured so far."""
    report = Report(suite=suite, machine=Machine.here(), repeats=repeats, blocks=[])
    total = sum(steps(plan.target_count, plan.cases, repeats) for plan in plans)
    most = max(case.load.connections for plan in plans for case in plan.cases)
    allow_connections(most)
    with reporting(report), progress(total) as step:
        for plan in plans:
            with started(plan.targets, plan.setup, plan.elsewhere) as targets:
                block = Block(
                    name=plan.name,
                    setup=plan.setup,
                    targets=targets,
                    cases=plan.cases,
                    samples=[],
                )
                report.blocks.append(block)
                for target in targets:
                    make_room(target, most)
                samples = alternate(targets, plan.cases, repeats, step)
                with _saved(report, save):
                    for sample in samples:
                        _note(block, sample, report, save)
    return report


def _note(block: Block, sample: Sample, report: Report, save: Path | None) -> None:
    """Keep a sample; the file is never more than one repeat behind."""
    begins = block.samples and block.samples[-1].repeat != sample.repeat
    block.samples.append(sample)
    if begins and save is not None:
        report.save(save)


@contextlib.contextmanager
def _saved(report: Report, save: Path | None) -> Iterator[None]:
    try:
        yield
    finally:
        if save is not None:
            report.save(save)
