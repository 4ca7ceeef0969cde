"""The pages: from which results they are made, and their introductions."""

from collections.abc import Callable
from typing import NamedTuple

from tools.benchmarks.judged import figures_page, scale_page
from tools.benchmarks.markdown import RESULTS, Files
from tools.benchmarks.tables import peers_page, rows_page


class Page(NamedTuple):
    """One page."""

    results: str  # pattern of the files that it is made of
    make: Callable[[], Files]


MULTIKEY = """Commands on keys of four instances. *split* is thREaDIS with `--multikey split`: MSET and DEL without locks.

| case | what it is |
| --- | --- |
| `mset+del:N` | one MSET and one DEL of N keys |
| `multi:*` | a transaction of ten commands, as redis-py sends it |
| hot lock | MSETs that all name one key |
| queues | pairs of BLPOP and LPUSH by two clients, on fifty queues |
| full queues | the same by one client, which never waits |
| several queues | the same with four queues: the client pushes to one, and pops from the first that is not empty |
| priorities | four queues that all clients share |
| publish | one message to 1,000 subscribers |
| copy, sinterstore | their keys are on two instances |"""

LATENCY = """*A lone client* sends a command and waits for the reply. The other cases are fifty clients in an open loop, at a tenth and at half of the
throughput that the bare server reached in a closed loop; the rate is the same for both servers. *Added* is what thREaDIS adds, in µs."""

CLIENTS = """Ten thousand clients that all send, compared with fifty. *100 connections at once*: a hundred clients connect at the same moment, each sends
PING and closes; CPU µs and latency are per connection."""

PAGES = [
    Page("figures.json", figures_page),
    Page("scale-*.json", scale_page),
    Page("full.json", peers_page),
    Page("multikey.json", lambda: rows_page("Many keys at once", "multikey", MULTIKEY)),
    Page("latency.json", lambda: rows_page("Latency", "latency", LATENCY, plot=True)),
    Page("clients.json", lambda: rows_page("Many clients", "clients", CLIENTS)),
]


def made() -> Files:
    """All pages whose results are there, and their plots."""
    found: Files = {}
    for page in PAGES:
        if any(RESULTS.glob(page.results)):
            found |= page.make()
    return found
