"""Keys: locks on them, clients that wait for them, their events, and which live together."""
