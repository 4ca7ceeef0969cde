"""thREaDIS: one ordinary Redis that uses every core."""

from importlib.metadata import version

__all__ = ["__version__"]

__version__ = version("threadis")
