"""Numbers as the servers read them from arguments."""

import re
from typing import Final

INTEGER: Final = re.compile(rb"0|-?[1-9][0-9]{0,18}")


def integer(raw: bytes) -> int | None:
    """A 64-bit integer in its one canonical form; None for anything else."""
    if not INTEGER.fullmatch(raw):
        return None
    number = int(raw)
    return number if -(2**63) <= number < 2**63 else None
