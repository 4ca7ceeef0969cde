"""Knobs: what may be set, and how it is read."""
