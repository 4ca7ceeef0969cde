"""Decides who may use protected commands and directives.

The decision is made here because only the proxy knows clients' addresses: to an instance every
client looks local.
"""

from typing import Final

from threadis import _core

LOCAL: Final = ("127.0.0.1", "::1")


def is_allowed(granted: str, client: _core.ClientInfo) -> bool:
    """Whether an option's value (no, yes, local) grants this client what it guards."""
    if granted == "local":
        host = client.address.rpartition(":")[0].strip("[]")
        return client.is_unix or host in LOCAL
    return granted == "yes"
