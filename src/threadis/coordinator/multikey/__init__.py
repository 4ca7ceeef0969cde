"""Commands over several instances: locks, two phases, copies."""
