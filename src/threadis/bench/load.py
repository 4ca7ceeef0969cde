"""The load generator's parameters and results; the generator itself is Rust (``rust/src/load``)."""

from collections.abc import Callable, Sequence
from typing import Self

import msgspec

from threadis import _core

ZIPF_EXPONENT = 0.99  # as YCSB has it: a few keys take most of the load


class Load(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One load. Names and meaning are those of ``LoadConfig`` in Rust; the defaults are here."""

    address: str = ""  # "host:port", or the path of a Unix socket
    connections: int = 50
    pipeline: int = 16  # commands a client sends at once, before it waits for all their replies
    value_size: int = 16  # bytes, at least 16
    mix: str = "get"  # get, set, mixed:0.1 (one in ten is a SET), mget:10 (ten keys a command)
    batches: list[tuple[bytes, int]] = []  # prepared commands, and their replies, instead of a mix
    key_count: int = 100_000
    zipf: float | None = None  # exponent; None: every key as often as any other
    rate: float | None = None  # commands a second in all, open loop; None: closed loop
    seconds: float = 2.0
    warmup: float = 0.3  # seconds before replies are counted
    threads: int = 1
    password: str | None = None
    seed: int = 1
    cpus: list[int] = []  # thread i runs on cpus[i % len]; empty: anywhere
    private_keys: bool = False  # each client reads exactly what it last wrote itself
    preloaded: bool = True  # every key has a value, so a nil is an error

    def preload(self) -> "LoadResult":
        """Write a valid value to every key; OSError if one is refused."""
        return LoadResult.from_core(_core.preload_keys(self))

    def run(self, connected: Callable[[], None] = lambda: None) -> "LoadResult":
        """Run to the end; raises OSError if it cannot begin.

        ``connected`` is called when all clients are connected and have sent nothing yet.
        """
        return LoadResult.from_core(_core.run_load(self, connected))


class LoadResult(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a load did, and its results."""

    commands: int  # replies within the measured time
    commands_total: int  # also those of the warm-up and of the end: what the CPU was spent on
    seconds: float
    busy_seconds: float  # from the first command to the last reply
    throughput: float  # commands a second
    p50_us: float  # from the write of a command to the cut of its reply
    p99_us: float
    p999_us: float
    max_us: float
    bytes_in: int
    bytes_out: int
    load_cpu_seconds: float
    errors: int = 0  # the sum of the following
    ownership_errors: int = 0  # a value of another key or client
    order_errors: int = 0  # the reply to another command of the pipeline, or an older write
    missing_errors: int = 0  # nil for a key that was loaded
    protocol_errors: int = 0
    server_errors: int = 0  # -ERR and the like
    unanswered: int = 0
    examples: list[str] = []

    @classmethod
    def from_core(cls, result: dict[str, object]) -> Self:
        """Convert the dict that Rust returns."""
        return msgspec.convert(
            {
                name: round(value, 4) if isinstance(value, float) else value
                for name, value in result.items()
            },
            cls,
        )

    def per(self, replies: int) -> Self:
        """Count in units of so many replies."""
        return msgspec.structs.replace(
            self,
            commands=self.commands // replies,
            commands_total=self.commands_total // replies,
            throughput=round(self.throughput / replies, 4),
        )


def summed_up(
    latencies: Sequence[float], total: int, seconds: float, cpu_seconds: float
) -> LoadResult:
    """Build the result of a load that Python has driven; latencies in seconds."""
    ordered = sorted(latencies) or [0.0]
    p50, p99, p999, most = (
        round(ordered[min(int(len(ordered) * share), len(ordered) - 1)] * 1e6, 4)
        for share in (0.5, 0.99, 0.999, 1.0)
    )
    return LoadResult(
        commands=len(latencies),
        commands_total=total,
        seconds=round(seconds, 4),
        busy_seconds=round(seconds, 4),
        throughput=round(total / seconds, 4),
        p50_us=p50,
        p99_us=p99,
        p999_us=p999,
        max_us=most,
        bytes_in=0,
        bytes_out=0,
        load_cpu_seconds=round(cpu_seconds, 4),
    )
