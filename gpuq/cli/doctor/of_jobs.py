"""Looks at the jobs: those that do not get on, and what is kept of those that have ended."""

import os
from collections.abc import Iterator

from gpuq.cli.doctor.finding import Finding, ok, warning
from gpuq.cli.doctor.scene import Scene, nearest_folder
from gpuq.core.units import count, format_bytes, parse_bytes


def jobs(scene: Scene) -> Iterator[Finding]:
    """Jobs that cannot be ended, and that hold GPUs for nothing."""
    running = scene.told().running
    if running is None:
        return
    stuck = [job for job in running if job["substate"] == "unkillable"]
    idle = [job for job in running if job.get("idle")]
    for job in stuck:
        why = f": {job['reason']}" if job["reason"] else ""
        yield warning(f"job {job['id']} cannot be ended{why}", f"See: gpuq why {job['id']}")
    for job in idle:
        what = f"job {job['id']} holds its GPUs and computes nothing"
        yield warning(what, f"See: gpuq why {job['id']}")
    if not stuck and not idle:
        yield ok(f"{count(len(running), 'job')} running, none of them stuck")


def kept(scene: Scene) -> Iterator[Finding]:
    """How long logs are kept, and whether the disk has the room that they may take."""
    told = scene.told()
    keep_for, keep_size = told.setting("keep_for"), told.setting("keep_size")
    if keep_for is None or keep_size is None or scene.state_dir is None:
        return
    disk = os.statvfs(nearest_folder(scene.state_dir))
    room = disk.f_blocks * disk.f_frsize
    what = f"logs of jobs are kept for {keep_for}, and {keep_size} of them"
    if parse_bytes(keep_size) > room:
        remedy = "Set keep_size lower in the file that this names: gpuq config"
        yield warning(f"{what}: more than the {format_bytes(room)} of that disk", remedy)
    else:
        yield ok(what)
