"""What stops a benchmark."""

from threadis.errors import ThreadisError


class BenchError(ThreadisError):
    """A benchmark that cannot be run or trusted; the sentence says why and what to do."""
