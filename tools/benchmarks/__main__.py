"""Writes the pages: ``python -m tools.benchmarks``."""

from tools.benchmarks.markdown import DIRECTORY
from tools.benchmarks.pages import made

for name, text in made().items():
    (DIRECTORY / name).write_text(text)
