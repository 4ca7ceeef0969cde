"""The proxy's own names: of users, connections, records, locks, databases.

They are created and recognised here; ``rust/src/base/own_names.rs`` has those that workers use.
Clients never see them.
"""

from typing import Final

from threadis import _core

ADMIN: Final = _core.our_prefix("admin")  # the user of the proxy's own commands
NOBODY: Final = _core.our_prefix("nobody")  # a user without any rights
# Prefixes of names: sandbox users of scripts, lanes, the coordinator's connections with a script
SANDBOX_USER, LANE = _core.our_prefix("guard"), _core.our_prefix("lane")
SCRIPT: Final = _core.our_prefix("script")
# … users that exist only to check the rules of others
CHECKED, LINE = _core.our_prefix("checked"), _core.our_prefix("line")

PREPARED, DECIDED = _core.record_prefix("prepared"), _core.record_prefix("decided")
WAITED, SWEPT = _core.record_prefix("waited"), _core.record_prefix("swept")

# In the text of each script of ours; clients cannot guess it.
MARK: Final = b"threadis:" + _core.unique_name()
# A line in those scripts of ours that contain no client's script.
SCRIPT_MARK: Final = b"-- " + MARK

# Prefixes of locks that are no keys: of groups of keys, as in ``rust/src/routing/colocation.rs``,
# and of serving the clients of a key
GROUP_LOCK, SERVING_LOCK = b"\0threadis:group:", b"\0threadis:served:"

COPIES: Final = 4  # databases for copies, and so for the databases of one transaction
HIDDEN_DATABASES: Final = 1 + COPIES  # above those that clients may select


def is_ours(name: bytes) -> bool:
    """Whether a user or a connection is ours."""
    return _core.is_our_name(name)


def records(databases: int) -> int:
    """Return the database of commit records."""
    return databases


def copies(databases: int) -> int:
    """Return the first database of the copies of borrowed keys."""
    return databases + 1


def is_hidden(db: int, databases: int) -> bool:
    """Whether clients cannot select a database."""
    return db >= databases
