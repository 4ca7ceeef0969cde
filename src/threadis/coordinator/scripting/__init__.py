"""Running scripts: on the real keys, or on copies."""
