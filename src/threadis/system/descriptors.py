"""How many clients can be served with the files that a process may open: lanes come first."""

import os
from itertools import count

LANES = 2048  # connections from the workers to the instances that the file limit leaves room for
LANES_LEAST = 8  # of one worker to one instance
LINKS = 8  # of the coordinator to one instance


def own_files(instances: int) -> int:
    """Return how many files the proxy may need besides clients and lanes."""
    return 2 * len(os.sched_getaffinity(0)) + 64 + LINKS * instances


def file_limit(maxclients: int, instances: int) -> int:
    """Return how many files the proxy may need in all."""
    return maxclients + LANES + own_files(instances)


def max_clients(files: int, instances: int, workers: int) -> int:
    """Return how many clients so many files allow; lanes keep a sufficient part."""
    least = LANES_LEAST * instances * workers
    return files - own_files(instances) - max(least, min(LANES, files // 4))


def least_files(instances: int, workers: int) -> int:
    """Return how many files are needed to serve one client."""
    return next(files for files in count() if max_clients(files, instances, workers) > 0)
