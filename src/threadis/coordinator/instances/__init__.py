"""Connections to the instances, what is asked over them, and how they are."""
