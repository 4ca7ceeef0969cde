"""``python -m threadis``."""

from threadis.cli import main

main()
