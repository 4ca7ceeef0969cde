"""Commands that wait for keys."""
