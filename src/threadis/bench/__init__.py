"""``threadis bench``: what thREaDIS costs, beside the same stock server without it."""
