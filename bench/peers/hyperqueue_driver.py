"""A HyperQueue server with one worker, its cores the slots. Each line of stdin is [argv, number]: one
job of so many tasks. Says "done" when it is there, and when a job is submitted."""

import json
import sys

from hyperqueue import Job, LocalCluster  # type: ignore[import-not-found]
from hyperqueue.cluster import WorkerConfig  # type: ignore[import-not-found]


def main() -> None:
    with LocalCluster(worker_config=WorkerConfig(cores=int(sys.argv[1]))) as cluster:
        client = cluster.client()
        warm = Job()
        warm.program(["/bin/true"])
        client.wait_for_jobs([client.submit(warm)])  # the worker is there
        print("done", flush=True)
        for line in sys.stdin:
            argv, number = json.loads(line)
            job = Job()
            for _ in range(number):
                job.program(argv)
            client.submit(job)
            print("done", flush=True)


if __name__ == "__main__":
    main()
