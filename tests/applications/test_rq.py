"""RQ: dependencies, retries, failures, delays, and the registries."""

from collections.abc import Callable
from datetime import timedelta

import redis
from rq import Queue, Retry
from rq.job import JobStatus

from applications import rq_jobs
from applications.conftest import Worker
from waiting import until


def test_rq(url: str, worker: Callable[..., Worker]) -> None:
    with redis.Redis.from_url(url) as client:
        queue = Queue("work", connection=client)
        first = queue.enqueue("applications.rq_jobs.add", 2, 3)
        second = queue.enqueue("applications.rq_jobs.note", "second", depends_on=first)
        third = queue.enqueue("applications.rq_jobs.note", "third", depends_on=[first, second])
        again = queue.enqueue("applications.rq_jobs.second_time", retry=Retry(max=2))
        bad = queue.enqueue("applications.rq_jobs.fails")
        never = queue.enqueue("applications.rq_jobs.note", "never", depends_on=bad)
        later = queue.enqueue_in(timedelta(seconds=1), "applications.rq_jobs.note", "later")
        many = queue.enqueue_many([Queue.prepare_data(rq_jobs.add, (n, n)) for n in range(10)])
        worker(
            "-m", "rq.cli", "worker", "work", "--url", url, "--with-scheduler",
            "--worker-class", "rq.SimpleWorker",
        )  # fmt: skip

        good = [first, second, third, again, later]
        until(
            lambda: all(job.get_status() == JobStatus.FINISHED for job in good), "all is done", 30
        )
        until(lambda: bad.get_status() == JobStatus.FAILED, "a job fails")
        assert first.return_value() == 5
        assert again.return_value() == "done"
        assert set(client.lrange("notes", 0, -1)) == {b"second", b"third", b"later"}
        assert never.get_status() == JobStatus.DEFERRED
        assert queue.failed_job_registry.get_job_ids() == [bad.id]
        assert set(queue.finished_job_registry.get_job_ids()) >= {job.id for job in many}
        assert "on purpose" in str(bad.latest_result().exc_string)
        assert queue.count == 0
