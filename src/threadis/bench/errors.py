"""Errors of benchmarks."""

from threadis.errors import ThreadisError


class BenchError(ThreadisError):
    """A benchmark that cannot be run or trusted; the text says why and what to do."""
