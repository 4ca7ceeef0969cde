"""Running scripts: where their keys are, or on copies."""
