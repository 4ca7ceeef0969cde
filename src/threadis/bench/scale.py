"""How throughput grows with cores: thREaDIS on K of them, compared with the bare server on one."""

import contextlib
import statistics
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Self

import msgspec
from msgspec.structs import replace

from threadis.bench.cores import SLOW, SLOW_CORES_LIMIT, Placement, Split, allot, splits
from threadis.bench.errors import BenchError
from threadis.bench.load import Load, LoadResult
from threadis.bench.machine import Machine
from threadis.bench.measure import BASELINE, Step, with_address
from threadis.bench.peers import STARTERS
from threadis.bench.progress import progress, reporting
from threadis.bench.report import lines
from threadis.bench.spread import Spread
from threadis.bench.targets import Setup, Target

SATURATED = (0.95, 1.10)  # of its quota that the busiest core must have used


class Point(msgspec.Struct, frozen=True):
    """One measurement: so many cores, divided so; no split: the bare server."""

    cores: int
    split: Split | None = None

    def __str__(self) -> str:
        return f"{self.cores} cores, {self.split}" if self.split else BASELINE


BARE = Point(1)


class ScaleCase(msgspec.Struct, frozen=True):
    """The load."""

    mix: str
    pipeline: int
    connections: int

    def __str__(self) -> str:
        return f"{self.mix} P={self.pipeline}, {self.connections} clients"


class ScaleSample(msgspec.Struct, frozen=True, kw_only=True):
    """One measurement of one point in one case."""

    case: ScaleCase
    point: Point
    repeat: int | None  # None: only to find the best split
    result: LoadResult
    core_cpu_us: list[float]  # per command, of each core
    use: list[float]  # of what each core may spend

    @property
    def subject(self) -> str:
        """Return the name of the point."""
        return str(self.point)


class ScaleReport(msgspec.Struct, frozen=True, kw_only=True):
    """All results of one scaling run; what ``--json`` saves."""

    suite: str = "scale"
    machine: Machine
    setup: Setup
    load: Load
    slow: bool  # cores are CPU quotas
    repeats: int
    targets: list[Target] = []
    samples: list[ScaleSample] = []

    @property
    def errors(self) -> int:
        """Return the number of wrong, missing or refused replies."""
        return sum(sample.result.errors for sample in self.samples)

    def save(self, path: Path) -> None:
        """Save as JSON, one sample a line, without paths of this machine."""
        setup = replace(self.setup, server=Path(self.setup.server).name)
        path.write_bytes(lines(replace(self, setup=setup)))

    @classmethod
    def load_from(cls, path: Path) -> Self:
        """Load what was saved."""
        return msgspec.json.decode(path.read_bytes(), type=cls)


class ScaleRow(msgspec.Struct, frozen=True, kw_only=True):
    """One point in one case: medians over the repeats."""

    case: ScaleCase
    point: Point
    throughput: float
    ratio: Spread  # throughput, to the bare server on one such core in the same repeat
    cpu_ratio: Spread  # the bare server's CPU per command, to that of the busiest core
    busiest_cpu_us: float
    total_cpu_us: float
    use: float  # of the busiest core: median
    repeats: int

    @property
    def saturated(self) -> bool:
        """Whether the servers were the bottleneck."""
        return SATURATED[0] <= self.use <= SATURATED[1]


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be measured."""

    cores: list[int]
    cases: list[ScaleCase]
    splits: list[Split]  # empty: find the best of what is worth trying
    repeats: int
    real: list[int]  # CPUs; empty: slow cores

    @property
    def share(self) -> float:
        """Return the share of a CPU that a core may use."""
        return 1.0 if self.real else SLOW.share


def check(options: Options) -> None:
    """Refuse options that cannot be placed."""
    for cores in options.cores:
        if options.real and cores > len(options.real):
            raise BenchError(f"--cores {cores}: --real names {len(options.real)} CPUs")
        if not options.real and not 1 <= cores <= SLOW_CORES_LIMIT:
            raise BenchError(f"--cores {cores}: 1 to {SLOW_CORES_LIMIT} slow cores fit on a CPU")
    for split in options.splits:
        if not any(split.fits(cores) for cores in options.cores):
            raise BenchError(f"--split {split}: fits none of --cores")


def measure(setup: Setup, load: Load, options: Options, save: Path | None) -> ScaleReport:
    """Find the best split for each case and number of cores, then measure these side by side."""
    report = ScaleReport(
        machine=Machine.here(),
        setup=setup,
        load=load,
        slow=not options.real,
        repeats=options.repeats,
    )
    with reporting(report), progress(_steps(options)) as step, _saved(report, save):
        for case in options.cases:
            aimed_at = replace(
                load, mix=case.mix, pipeline=case.pipeline, connections=case.connections
            )
            best = []
            for cores in options.cores:
                candidates = _candidates(cores, options)
                if len(candidates) > 1:
                    found = _search(setup, aimed_at, case, candidates, options, step)
                    report.samples.extend(found)
                    candidates = [max(found, key=lambda one: one.result.throughput).point]
                best += candidates
            for sample in _repeat(setup, aimed_at, case, [BARE, *best], options, step, report):
                report.samples.append(sample)
                if save is not None:
                    report.save(save)
    return report


def rows(samples: Sequence[ScaleSample]) -> list[ScaleRow]:
    """Return one row for each point that was repeated, in the order of cases and cores."""
    measured = [sample for sample in samples if sample.repeat is not None]
    keys = dict.fromkeys((sample.case, sample.point) for sample in measured)
    ordered = sorted(keys, key=lambda key: (list(keys).index(key), key[1].cores))
    return [row for key in ordered if (row := _row(*key, measured)) is not None]


def _row(case: ScaleCase, point: Point, samples: Sequence[ScaleSample]) -> ScaleRow | None:
    mine = {one.repeat: one for one in samples if (one.case, one.point) == (case, point)}
    bare = {one.repeat: one for one in samples if (one.case, one.point) == (case, BARE)}
    pairs = [(mine[repeat], bare[repeat]) for repeat in mine.keys() & bare.keys()]
    ratio = Spread.of([one.result.throughput / other.result.throughput for one, other in pairs])
    cpu = Spread.of([other.core_cpu_us[0] / max(one.core_cpu_us) for one, other in pairs])
    if ratio is None or cpu is None:
        return None
    own = list(mine.values())

    def median(value: Callable[[ScaleSample], float]) -> float:
        return statistics.median(map(value, own))

    return ScaleRow(
        case=case,
        point=point,
        throughput=median(lambda one: one.result.throughput),
        ratio=ratio,
        cpu_ratio=cpu,
        busiest_cpu_us=median(lambda one: max(one.core_cpu_us)),
        total_cpu_us=median(lambda one: sum(one.core_cpu_us)),
        use=median(lambda one: max(one.use)),
        repeats=len(own),
    )


def _candidates(cores: int, options: Options) -> list[Point]:
    wanted = [one for one in options.splits if one.fits(cores)]
    return [Point(cores, split) for split in wanted or splits(cores)]


def _steps(options: Options) -> int:
    total = 0
    for cores in options.cores:
        count = len(_candidates(cores, options))
        total += count if count > 1 else 0
    return len(options.cases) * (total + options.repeats * (1 + len(options.cores)))


def _search(
    setup: Setup,
    load: Load,
    case: ScaleCase,
    points: Sequence[Point],
    options: Options,
    step: Step,
) -> list[ScaleSample]:
    """Measure each split once."""
    found = []
    for point in points:
        step(f"{case}: trying {point}")
        with _placed(setup, load, [point], options) as ((target, placement),):
            found.append(
                _measure(case, point, None, with_address(load, target), placement, options)
            )
    return found


def _repeat(
    setup: Setup,
    load: Load,
    case: ScaleCase,
    points: Sequence[Point],
    options: Options,
    step: Step,
    report: ScaleReport,
) -> Iterator[ScaleSample]:
    """Measure all points in turn, starting with another one each time."""
    with _placed(setup, load, points, options) as placed:
        if not report.targets:
            report.targets.extend(target for target, _ in placed[:2])
        for repeat in range(options.repeats):
            order = list(zip(points, placed, strict=True))
            first = repeat % len(order)
            for point, (target, placement) in [*order[first:], *order[:first]]:
                step(f"{case}, repeat {repeat + 1} of {options.repeats}: {point}")
                changed = replace(load, seed=load.seed + repeat)
                yield _measure(
                    case, point, repeat, with_address(changed, target), placement, options
                )


@contextlib.contextmanager
def _placed(
    setup: Setup, load: Load, points: Sequence[Point], options: Options
) -> Iterator[list[tuple[Target, Placement]]]:
    """Start servers, and load data before they are put on their cores."""
    with contextlib.ExitStack() as stack:
        targets = []
        for point in points:
            name = "threadis" if point.split else BASELINE
            if split := point.split:
                setup = replace(setup, workers=split.workers, instances=split.instances)
            target = stack.enter_context(STARTERS[name](setup))
            with_address(load, target).preload()
            targets.append(target)
        counts = [point.cores for point in points]
        cores = stack.enter_context(allot(counts, options.real))
        yield [(target, Placement(target, own)) for target, own in zip(targets, cores, strict=True)]


def _measure(
    case: ScaleCase,
    point: Point,
    repeat: int | None,
    load: Load,
    placement: Placement,
    options: Options,
) -> ScaleSample:
    before: list[float] = []
    result = load.run(lambda: before.extend(placement.cpu_seconds()))
    seconds = [now - then for now, then in zip(placement.cpu_seconds(), before, strict=True)]
    granted = result.busy_seconds * options.share
    return ScaleSample(
        case=case,
        point=point,
        repeat=repeat,
        result=result,
        core_cpu_us=[round(one * 1e6 / max(result.commands_total, 1), 4) for one in seconds],
        use=[round(one / granted, 3) for one in seconds],
    )


@contextlib.contextmanager
def _saved(report: ScaleReport, save: Path | None) -> Iterator[None]:
    try:
        yield
    finally:
        if save is not None:
            report.save(save)
