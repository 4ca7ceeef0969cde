"""What stops a benchmark."""


class BenchError(Exception):
    """A benchmark that cannot be run or trusted; the sentence says why and what to do."""
