"""A command's arguments as servers log them."""

from typing import Final

from threadis.coordinator.instances.links import Words
from threadis.coordinator.multikey.migrate import OPTIONS

WORDS, WORD = 32, 128  # of an entry: words, and bytes of each
REDACTED: Final = b"(redacted)"


def as_logged(words: Words) -> list[bytes]:
    """Redact secrets and shorten long arguments, as the server does."""
    first = words[0].lower()
    if first == b"acl" and words[1].lower() in (b"setuser", b"deluser"):
        words = [*words[:2], *[REDACTED] * (len(words) - 2)]
    elif first == b"config":
        secret = {at + 1 for at in range(2, len(words), 2) if is_secret(words[at])}
        words = [REDACTED if at in secret else word for at, word in enumerate(words)]
    elif first == b"migrate":
        words = [
            REDACTED if at > OPTIONS and is_login(words, at) else word
            for at, word in enumerate(words)
        ]
    if len(words) > WORDS:
        more = len(words) - WORDS + 1
        words = [*words[: WORDS - 1], b"... (%d more arguments)" % more]
    return [
        word if len(word) <= WORD else word[:WORD] + b"... (%d more bytes)" % (len(word) - WORD)
        for word in words
    ]


def is_login(words: Words, at: int) -> bool:
    """Whether an argument of MIGRATE belongs to AUTH or AUTH2."""
    before = [word.upper() for word in words[max(at - 2, OPTIONS) : at]]
    return before[-1:] == [b"AUTH"] or b"AUTH2" in before


def is_secret(directive: bytes) -> bool:
    """Whether the value of a directive is a password."""
    return directive.lower().endswith((b"pass", b"auth"))
