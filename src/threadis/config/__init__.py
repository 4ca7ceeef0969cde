"""Configuration: the knobs, and how they are parsed."""
