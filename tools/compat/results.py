"""Outcomes of a test suite on two servers, as they are kept in benchmarks/results."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path


@dataclass(slots=True)
class Unit:
    """One file of the suite; only tests that the stock server passes count."""

    total: int = 0  # passed by the stock server
    failed: dict[str, str] = field(default_factory=dict)  # of these, by thREaDIS: what it said

    @property
    def passed(self) -> int:
        """How many of them thREaDIS passes."""
        return self.total - len(self.failed)


@dataclass(slots=True)
class Results:
    """One run."""

    suite: str  # "Redis 7.0.15"
    server: str  # what runs beside it, and below thREaDIS
    untagged: bool  # the common hash tags were taken out of the keys
    units: dict[str, Unit] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """Tests that count."""
        return sum(unit.total for unit in self.units.values())

    @property
    def passed(self) -> int:
        """Tests passed."""
        return sum(unit.passed for unit in self.units.values())

    def save(self, path: Path) -> None:
        """Write it."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(self), indent=1, sort_keys=True) + "\n")

    @classmethod
    def load(cls, path: Path) -> "Results":
        """Read it."""
        known = json.loads(path.read_text())
        known["units"] = {name: Unit(**unit) for name, unit in known["units"].items()}
        return cls(**known)
