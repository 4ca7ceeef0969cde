"""Owns the exceptions: each carries the whole sentence that the user reads, and the exit status::

ThreadisError        1
├── ConfigError      2   a flag, or a key of the TOML file
├── ServerError      1   the stock server, or a process we started
├── DataError        1   the data directory
└── ListenError      1   an address we cannot listen on
"""


class ThreadisError(Exception):
    """Something the user can mend; its text says what and how."""

    exit_status = 1


class ConfigError(ThreadisError):
    """A wrong value or name in a flag or in the TOML file."""

    exit_status = 2


class ServerError(ThreadisError):
    """The stock server is missing, too old, or does not come up."""


class DataError(ThreadisError):
    """The data directory is locked, damaged, or not ours."""


class ListenError(ThreadisError):
    """An address is in use or not available."""
