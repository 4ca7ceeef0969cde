"""Numbers in arguments, parsed as the servers do."""

import math
import re
from typing import Final

INTEGER: Final = re.compile(rb"0|-?[1-9][0-9]{0,18}")


def parse_integer(raw: bytes) -> int | None:
    """Parse a 64-bit integer in canonical form; None for anything else."""
    if not INTEGER.fullmatch(raw):
        return None
    number = int(raw)
    return number if -(2**63) <= number < 2**63 else None


SHORTEST_WAIT: Final = 0.001  # seconds that servers let a client wait at least


def parse_seconds(word: bytes) -> float | None:
    """Parse seconds as C's strtold does; None for anything else."""
    if word != word.strip() or b"_" in word:
        return None
    try:
        is_hex = b"x" in word.lower()
        number = float.fromhex(word.decode()) if is_hex else float(word)
    except (ValueError, OverflowError):
        return None
    if math.isnan(number):
        return None
    # What Python rounds to zero may not be zero for C, which has more digits.
    digits = word.lower().partition(b"p" if is_hex else b"e")[0]
    if number == 0 and re.search(b"[1-9a-f]", digits):
        number = math.copysign(SHORTEST_WAIT, number) / 2
    # Servers round up to whole milliseconds: a little less than nothing is no limit.
    return 0 if -SHORTEST_WAIT < number < 0 else number
