"""``threadis bench``: compares thREaDIS with the same stock server running alone."""
