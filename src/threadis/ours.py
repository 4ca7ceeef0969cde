"""Names of what is ours and nobody's else: users, connections, keys, databases.

They are made here and known here; ``rust/src/base/own_names.rs`` has those that workers use, too.
No client sees one of them, whatever it asks.
"""

from typing import Final

from threadis import _core

ADMIN: Final = _core.our_prefix("admin")  # the user as whom we come
NOBODY: Final = _core.our_prefix("nobody")  # a user that may do nothing
# What begins the names of: users for scripts, workers' connections, ours while they run scripts
GUARD, LANE = _core.our_prefix("guard"), _core.our_prefix("lane")
SCRIPT: Final = _core.our_prefix("script")
# … users that try the rules of others
CHECKED, LINE = _core.our_prefix("checked"), _core.our_prefix("line")

PREPARED, DECIDED = _core.record_prefix("prepared"), _core.record_prefix("decided")
WAITED, SWEPT = _core.record_prefix("waited"), _core.record_prefix("swept")

# In the text of each script of ours; nobody else can write it.
MARK: Final = b"threadis:" + _core.unique_name()
# A line in those that are no client's at all.
SCRIPT_MARK: Final = b"-- " + MARK

COPIES: Final = 4  # databases of copies: a transaction may use as many of the client's
HIDDEN_DATABASES: Final = 1 + COPIES  # after those that clients may select


def is_ours(name: bytes) -> bool:
    """Whether a user or a connection is ours."""
    return _core.is_our_name(name)


def records(databases: int) -> int:
    """Return the database of the records of writes over several instances."""
    return databases


def copies(databases: int) -> int:
    """Return the first database of the copies of borrowed keys."""
    return databases + 1


def is_hidden(db: int, databases: int) -> bool:
    """Whether a database is one that clients cannot select."""
    return db >= databases
