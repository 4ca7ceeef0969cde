"""Who may use DEBUG, MODULE and protected directives: judged here, where clients have addresses.

To an instance every client looks local, so its own ``local`` would mean everybody.
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


def refusal(command: str, option: str) -> str:
    """Tell a client that it may not, in the server's words."""
    return (
        f'ERR {command} command not allowed. If the {option} option is set to "local", you can '
        "run it from a local connection, otherwise you need to set this option in the "
        "configuration file, and then restart the server."
    )
