"""Knobs: what may be set, how it is read, and what an instance is told of it."""
