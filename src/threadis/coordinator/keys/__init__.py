"""Keys: who locks them, who waits for them, who is told of them, which live together."""
