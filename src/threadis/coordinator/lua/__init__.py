"""Scripts and functions: their texts, what they can touch, and the sandbox that they run in."""
