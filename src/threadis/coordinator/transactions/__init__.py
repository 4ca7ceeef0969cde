"""WATCH and EXEC."""
