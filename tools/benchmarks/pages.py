"""The pages: which results they are made of, and what they say first."""

from collections.abc import Callable
from typing import NamedTuple

from tools.benchmarks.judged import figures_page, scale_page
from tools.benchmarks.markdown import RESULTS, Files
from tools.benchmarks.tables import peers_page, rows_page


class Page(NamedTuple):
    """One page."""

    results: str  # pattern of the files that it is made of
    make: Callable[[], Files]


MULTIKEY = """Commands on keys of four instances. *split* is thREaDIS with `--multikey split`: MSET and DEL without locks. `mset+del:N` is
one MSET and one DEL of N keys, `multi:*` a transaction of ten commands as redis-py sends it, *hot lock* MSETs that all name one same
key, *queues* pairs of BLPOP and LPUSH of two clients on fifty queues, *full queues* the same of one client, which never waits,
*several queues* the same with four queues, of which it feeds one and takes from the first it finds, *priorities* four that all clients share,
*publish* one message to 1,000 subscribers; *copy* and *sinterstore* have their keys on two instances."""

LATENCY = """A lone client asks and waits. The others are fifty clients in an open loop, at a tenth and at half of what the bare server
did in a closed one: the same rate for both. *Added* is what thREaDIS adds, in µs."""

CLIENTS = """Ten thousand clients that all send, beside fifty; and connections that come a hundred at once, ask PING and go: there, CPU µs
and latency are of a connection."""

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
