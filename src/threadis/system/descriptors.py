"""How many clients may be served with the files that a process may open: lanes come first."""

import os
from itertools import count

LANES = 2048  # connections from the workers to the instances that the file limit leaves room for
LANES_LEAST = 8  # of one worker to one instance
LINKS = 8  # of the coordinator to one instance


def own_files(instances: int) -> int:
    """Files the proxy may need besides clients and lanes."""
    return 2 * len(os.sched_getaffinity(0)) + 64 + LINKS * instances


def file_limit(maxclients: int, instances: int) -> int:
    """Files the proxy may need: clients, lanes, and what any process has open."""
    return maxclients + LANES + own_files(instances)


def clients_room(files: int, instances: int, workers: int) -> int:
    """Clients that may have files of so many; lanes keep a part that is large enough for them."""
    least = LANES_LEAST * instances * workers
    return files - own_files(instances) - max(least, min(LANES, files // 4))


def files_least(instances: int, workers: int) -> int:
    """Files with which one client can be served."""
    return next(files for files in count() if clients_room(files, instances, workers) > 0)
