"""Connections to the instances, what is asked over them, and the instances' state."""
