"""What is on disk: data directory, layout, integrity, saved settings."""
