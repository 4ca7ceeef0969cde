"""Pages and plots from what `threadis bench` saved."""
