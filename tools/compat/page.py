"""Renders docs/compatibility.md from the results of the suites and the reasons we know.

python -m tools.compat.page [RESULT.json ...]       (default: benchmarks/results/compat-*.json)
"""

import re
import sys
import tomllib
from pathlib import Path

from tools.compat.results import Results

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "compatibility.md"
REASONS = Path(__file__).with_name("reasons.toml")
UNKNOWN = "not explained yet"
HEAD = """# Compatibility

Redis's and Valkey's own test suites, in external mode, against `threadis serve --instances 4`. We count only tests that the stock server passes
in the same mode, without those tagged `needs:repl` (they compare one server's replication stream). *Untagged* is the same suite without the
hash tags in its keys, so that the keys of a command really live on different instances.

Made by `make compat SUITE=DIR` (a checkout of redis/redis or valkey-io/valkey) from [benchmarks/results](../benchmarks/results); the reasons
are in [tools/compat/reasons.toml](../tools/compat/reasons.toml).

"""


def reasons() -> list[tuple[re.Pattern[str], str]]:
    """Patterns of test names, and why they fail."""
    known = tomllib.loads(REASONS.read_text())["reason"]
    return [(re.compile(name), one["why"]) for one in known for name in one["tests"]]


def why(name: str, error: str, known: list[tuple[re.Pattern[str], str]]) -> str:
    """The reason why a test fails."""
    for pattern, reason in known:
        if pattern.search(name) or pattern.search(error):
            return reason
    return UNKNOWN


def render(runs: list[Results]) -> str:
    """The page."""
    known = reasons()
    lines = [HEAD, "| suite | passed | tests | |", "| --- | --- | --- | --- |"]
    for run in runs:
        share = f"{100 * run.passed / run.total:.2f} %" if run.total else "-"
        lines.append(f"| {_title(run)} | {run.passed} | {run.total} | {share} |")
    for run in runs:
        lines += ["", f"## {_title(run)}", "", f"Compared with {run.server}.", ""]
        whole = [name for name, unit in run.units.items() if not unit.failed and unit.total]
        lines.append(f"Everything passes in {', '.join(sorted(whole))}.")
        lines += ["", "| unit | test that does not pass | why |", "| --- | --- | --- |"]
        for name, unit in sorted(run.units.items()):
            for test, error in sorted(unit.failed.items()):
                lines.append(f"| {name} | {_plain(test)} | {why(test, error, known)} |")
    return "\n".join(lines) + "\n"


def _title(run: Results) -> str:
    return f"{run.suite}, untagged" if run.untagged else run.suite


def _plain(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


def main(paths: list[str]) -> None:
    """Render."""
    found = [Path(path) for path in paths]
    found = found or sorted((ROOT / "benchmarks" / "results").glob("compat-*.json"))
    PAGE.write_text(render([Results.load(path) for path in found]))


if __name__ == "__main__":
    main(sys.argv[1:])
