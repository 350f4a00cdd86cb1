"""What `submit` and `run` offer beside the options of a job: many at once, and Slurm's spellings, which
the help does not show. What is said is read elsewhere, and only where something is."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Annotated, Any

    from gpuq.cli.declaring import hidden, many

MANY = ("array", "grid", "params")
# What those say; nobody has said it where it is None.
SPELLED = frozenset(("gpus", "gpu_model", "name", "cpus", "cwd", "priority"))
SPELLINGS = ("gres", "job_name", "cpus_per_task", "chdir", "nice")


def many_at_once(
    *,
    array: Annotated[
        str | None,
        many(
            "-a",
            "--array",
            metavar="INDICES",
            help="A job for each: 0-99%4 (at most 4 at once), 1-9:2, 1,3,7-9; {i} is its index. With "
            "--grid or --params as many as these give (0, 1, ... unless said), or only %4.",
        ),
    ] = None,
    grid: Annotated[
        list[str] | None,
        many(
            metavar="NAME=VALUES",
            help="lr=0.1,0.01 or seed=1-5, and {lr} is its value; repeatable: each with each. "
            'x="a,b" is one value.',
        ),
    ] = None,
    params: Annotated[
        str | None,
        many(metavar="FILE", help="CSV: names in the first row, below it a row for each job."),
    ] = None,
    gres: Annotated[str | None, hidden("--gres")] = None,
    job_name: Annotated[str | None, hidden("-J", "--job-name")] = None,
    cpus_per_task: Annotated[str | None, hidden("--cpus-per-task")] = None,
    chdir: Annotated[str | None, hidden("-D", "--chdir")] = None,
    nice: Annotated[str | None, hidden("--nice")] = None,
) -> Any:
    """Their names and kinds alone."""
