"""What a handler tells a worker: the reply, and what changes in the client's session."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Answer:
    """A reply in the client's protocol; None leaves the session as it is."""

    data: bytes
    db: int | None = None
    watching: bool | None = None
    monitoring: bool = False  # it sees every command from now on
