"""The results of a benchmark: samples, and the rows computed from them; as JSON."""

import statistics
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Self

import msgspec
from msgspec.structs import replace

from threadis.bench.idle import IdleCost
from threadis.bench.machine import Machine
from threadis.bench.measure import BASELINE, Case, Sample
from threadis.bench.spread import Spread
from threadis.bench.targets import Setup, Target


class Row(msgspec.Struct, frozen=True):
    """One target in one case: medians over the repeats."""

    target: str
    case: str
    throughput: float
    p50_us: float
    p99_us: float
    p999_us: float
    cpu_us: dict[str, float]  # per command: each part, and total
    cpu_ratio: Spread | None  # to the bare server in the same repeat; None: not known
    throughput_ratio: Spread | None
    p50_added_us: Spread | None  # to that of the bare server in the same repeat
    p99_added_us: Spread | None
    load_cpu_us: float  # what the load generator itself spent per command
    errors: int  # over all repeats
    repeats: int


class Block(msgspec.Struct, frozen=True, kw_only=True):
    """Targets that ran side by side, and their samples: only these are comparable."""

    name: str
    setup: Setup
    targets: list[Target]
    cases: list[Case]
    samples: list[Sample]

    @property
    def rows(self) -> list[Row]:
        """Return one row for each target and case."""
        return rows(self.samples)


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """All results of one benchmark; what ``--json`` saves."""

    suite: str
    machine: Machine
    repeats: int
    blocks: list[Block]
    idle: list[IdleCost] = []

    @property
    def samples(self) -> list[Sample]:
        """Return the samples of all blocks."""
        return [sample for block in self.blocks for sample in block.samples]

    @property
    def errors(self) -> int:
        """Return the number of wrong, missing or refused replies."""
        return sum(sample.result.errors for sample in self.samples)

    def save(self, path: Path) -> None:
        """Save as JSON, one sample a line, without secrets and without paths of this machine."""
        hidden = [
            replace(
                block,
                setup=replace(block.setup, server=Path(block.setup.server).name, programs={}),
                targets=[replace(target, password=None) for target in block.targets],
            )
            for block in self.blocks
        ]
        path.write_bytes(lines(replace(self, blocks=hidden)))

    @classmethod
    def load(cls, path: Path) -> Self:
        """Load what was saved."""
        return msgspec.json.decode(path.read_bytes(), type=cls)


def lines(value: msgspec.Struct) -> bytes:
    """Encode JSON for readable diffs: what contains no list of objects is one line."""
    return _lines(msgspec.to_builtins(value), "") + b"\n"


def _lines(value: object, indent: str) -> bytes:
    deeper = indent + " "
    if isinstance(value, dict) and any(_is_long(one) for one in value.values()):
        members = [
            deeper.encode() + msgspec.json.encode(name) + b": " + _lines(one, deeper)
            for name, one in value.items()
        ]
        return b"{\n" + b",\n".join(members) + b"\n" + indent.encode() + b"}"
    if isinstance(value, list) and _is_long(value):
        elements = [deeper.encode() + _lines(one, deeper) for one in value]
        return b"[\n" + b",\n".join(elements) + b"\n" + indent.encode() + b"]"
    return msgspec.json.encode(value)


def _is_long(value: object) -> bool:
    """Whether it is a list of objects, or an object that contains one."""
    if isinstance(value, dict):
        return any(map(_is_long, value.values()))
    return isinstance(value, list) and any(isinstance(one, dict) for one in value)


def rows(samples: Sequence[Sample]) -> list[Row]:
    """Return one row for each target and case, in the order of the cases."""
    cases = dict.fromkeys(sample.case for sample in samples)
    targets = dict.fromkeys(sample.target for sample in samples)
    return [
        _row(case, target, samples)
        for case in cases
        for target in targets
        if any(sample.case == case and sample.target == target for sample in samples)
    ]


def _row(case: str, target: str, samples: Iterable[Sample]) -> Row:
    mine: dict[int, Sample] = {}
    base: dict[int, Sample] = {}
    for sample in samples:
        if sample.case == case:
            if sample.target == target:
                mine[sample.repeat] = sample
            if sample.target == BASELINE:
                base[sample.repeat] = sample
    own = list(mine.values())

    def median(value: Callable[[Sample], float]) -> float:
        return statistics.median(map(value, own))

    def compared(
        value: Callable[[Sample], float], how: Callable[[float, float], float]
    ) -> Spread | None:
        if target == BASELINE:
            return None
        pairs = [(value(mine[repeat]), value(base[repeat])) for repeat in mine.keys() & base.keys()]
        return Spread.of([how(one, other) for one, other in pairs if one and other])

    return Row(
        target=target,
        case=case,
        throughput=median(lambda sample: sample.result.throughput),
        p50_us=median(lambda sample: sample.result.p50_us),
        p99_us=median(lambda sample: sample.result.p99_us),
        p999_us=median(lambda sample: sample.result.p999_us),
        cpu_us={
            part: statistics.median(sample.cpu_us[part] for sample in own) for part in own[0].cpu_us
        },
        cpu_ratio=compared(lambda sample: sample.cpu_us.get("total", 0.0), _ratio),
        throughput_ratio=compared(lambda sample: sample.result.throughput, _ratio),
        p50_added_us=compared(lambda sample: sample.result.p50_us, _difference),
        p99_added_us=compared(lambda sample: sample.result.p99_us, _difference),
        load_cpu_us=median(
            lambda sample: (
                sample.result.load_cpu_seconds * 1e6 / max(sample.result.commands_total, 1)
            )
        ),
        errors=sum(sample.result.errors for sample in own),
        repeats=len(own),
    )


def _ratio(one: float, other: float) -> float:
    return one / other


def _difference(one: float, other: float) -> float:
    return one - other
