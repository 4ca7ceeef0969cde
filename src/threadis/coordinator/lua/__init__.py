"""Scripts and functions: their texts, what these can touch, and the sandbox they run in."""
