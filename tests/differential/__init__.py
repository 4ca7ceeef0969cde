"""thREaDIS beside a bare stock server of the same binary: every reply is compared."""
