"""Start a Dask cluster on SLURM for `seed extract`: one worker of one thread a GPU. Ends with Ctrl-C.

    pip install 'speaker-seed[cluster]' dask-jobqueue
    python cluster.py --jobs 8
    seed extract … --scheduler <the address it prints>

Adapt partition, memory and time to your site.
"""

import argparse
import signal

from dask_jobqueue import SLURMCluster


def make_cluster() -> SLURMCluster:
    """Return a cluster without workers yet; each of its jobs is one worker that owns one GPU."""
    return SLURMCluster(
        queue="gpu",
        cores=1,  # one thread: it feeds its GPU alone
        processes=1,
        memory="16GB",
        walltime="12:00:00",
        job_cpu=8,
        job_extra_directives=["--gres=gpu:1"],
        worker_extra_args=["--resources", "GPU=1"],  # so that every shard takes one
        scheduler_options={"dashboard_address": None},
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=1, help="SLURM jobs, one GPU each (default: 1)")
    with make_cluster() as cluster:
        cluster.scale(jobs=parser.parse_args().jobs)
        print(cluster.scheduler_address, flush=True)
        signal.pause()
