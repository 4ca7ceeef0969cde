"""The parent process: plans, starts, watches and stops the instances and the proxy."""
