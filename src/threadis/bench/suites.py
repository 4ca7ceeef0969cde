"""What the suites measure: multikey, latency, clients."""

from msgspec.structs import replace

from threadis.bench.errors import BenchError
from threadis.bench.load import Load
from threadis.bench.measure import BASELINE, Case
from threadis.bench.suite import Plan
from threadis.bench.targets import Setup

BOTH = [BASELINE, "threadis"]
INSTANCES = 4  # that the keys of one command are spread over
SUBSCRIBERS = 1000
ACTIVE = 10_000  # clients that all send
STORM = 100  # connections that come at once
HALF, TENTH = 0.5, 0.1  # of the bare server's throughput

SINGLE = {  # clients of the workloads that are not about many keys
    "multi:set": 50,
    "multi:get": 50,
    "hot lock": 50,
    "queues": 100,
    "full queues": 50,
    "several queues": 50,
    "priorities": 50,
    "evalsha": 50,
    "copy 1 KB": 50,
    "sinterstore 1 KB": 50,
    "copy 1 MB": 4,
    "sinterstore 1 MB": 4,
    "publish": SUBSCRIBERS,
}


def multikey(setup: Setup, load: Load) -> list[Plan]:
    """Commands on many keys, atomic and split, and others that need several instances."""
    setup = replace(setup, instances=INSTANCES)
    one = replace(load, pipeline=1)
    many = [
        Case(name=f"{name}:{count}", load=replace(one, mix=f"{name}:{count}"))
        for name in ("mget", "mset")
        for count in (10, 100, 1000)
    ]
    many += [
        Case(name=name, load=one, workload=name)
        for name in ("mset+del:10", "mset+del:100", "mset+del:1000")
    ]
    others = [
        Case(name=name, load=replace(one, connections=clients), workload=name)
        for name, clients in SINGLE.items()
    ]
    return [
        Plan(name="many keys", setup=setup, targets=[*BOTH, "split"], cases=many),
        Plan(name="other commands", setup=setup, targets=BOTH, cases=others),
    ]


def latency(setups: dict[str, Setup], load: Load) -> list[Plan]:
    """A lone client, and fifty at a tenth and at half of the bare server's throughput."""
    one = replace(load, pipeline=1)
    cases = []
    for mix in ("get", "set"):
        lone = replace(one, mix=mix, connections=1)
        cases.append(Case(name=f"{mix}, a lone client", load=lone))
        for share, name in ((TENTH, "a tenth of the load"), (HALF, "half load")):
            cases.append(Case(name=f"{mix}, {name}", load=replace(one, mix=mix), of_bare=share))
    return [
        Plan(name=name, setup=setup, targets=BOTH, cases=cases) for name, setup in setups.items()
    ]


def clients(setup: Setup, load: Load) -> list[Plan]:
    """Ten thousand active clients, and connections that come and go."""
    active = [
        Case(
            name=f"{mix} P={depth}, {count} clients",
            load=replace(load, mix=mix, pipeline=depth, connections=count),
        )
        for count in (50, ACTIVE)
        for depth in (1, 16)
        for mix in ("get", "set")
    ]
    burst = replace(load, connections=STORM)
    storm = Case(name=f"{STORM} connections at once", load=burst, workload="connect")
    return [Plan(name="many clients", setup=setup, targets=BOTH, cases=[*active, storm])]


def only(plans: list[Plan], text: str) -> list[Plan]:
    """Keep only cases whose name, after that of the block, contains the text."""
    found = [
        replace(plan, cases=[one for one in plan.cases if text in f"{plan.name}: {one.name}"])
        for plan in plans
    ]
    if not any(plan.cases for plan in found):
        raise BenchError(f"--only {text}: no case is named so")
    return [plan for plan in found if plan.cases]
