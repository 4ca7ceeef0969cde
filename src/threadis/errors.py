"""The exceptions: each carries the complete sentence that the user reads, and the exit status::

ThreadisError        1
├── ConfigError      2   a flag, or a key of the TOML file
├── ServerError      1   the stock server, or a process that we started
├── DataError        1   the data directory
└── ListenError      1   an address that we cannot listen on
"""


class ThreadisError(Exception):
    """An error that the user can fix; its text says what is wrong and what to do."""

    exit_status = 1


class ConfigError(ThreadisError):
    """A wrong value or name in a flag or in the TOML file."""

    exit_status = 2


class ServerError(ThreadisError):
    """The stock server is missing, too old, or does not start."""


class DataError(ThreadisError):
    """The data directory is locked, damaged, or not ours."""


class ListenError(ThreadisError):
    """An address is in use or not available."""
