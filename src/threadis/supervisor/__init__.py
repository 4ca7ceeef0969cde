"""The parent process: plans, starts, watches and stops instances and proxy."""
