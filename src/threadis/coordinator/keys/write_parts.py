"""Types for a write over several instances: each instance's part."""

from collections.abc import Sequence

from threadis.coordinator.instances.links import Words

Part = Sequence[Words]  # the commands of one instance
PartPlace = tuple[int, int]  # of a command: the instance of its part, and its number there
