"""Start a Dask cluster on SLURM for `seed extract`, with one single-threaded worker per GPU. Stop it with Ctrl-C.

    pip install '.[cluster]' (docs/install.md) dask-jobqueue
    python cluster.py --jobs 8
    seed extract … --scheduler <the address it prints>

Adapt the partition, memory and time limit to your site.
"""

import argparse
import signal

from dask_jobqueue import SLURMCluster


def make_cluster() -> SLURMCluster:
    """Return a cluster without workers. Each of its jobs will be one worker with one GPU."""
    return SLURMCluster(
        queue="gpu",
        cores=1,  # a single thread feeds the GPU
        processes=1,
        memory="16GB",
        walltime="12:00:00",
        job_cpu=8,
        job_extra_directives=["--gres=gpu:1"],
        worker_extra_args=["--resources", "GPU=1"],  # every shard takes one
        scheduler_options={"dashboard_address": None},
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=1, help="Number of SLURM jobs, with one GPU each (default: 1).")
    with make_cluster() as cluster:
        cluster.scale(jobs=parser.parse_args().jobs)
        print(cluster.scheduler_address, flush=True)
        signal.pause()
