"""How many jobs there are in the queue and in what state, who holds GPUs, how big the file is: for
monitoring, which asks over and over, and so beside the loop."""

from dataclasses import dataclass

from gpuq.daemon.store.connection import Row
from gpuq.daemon.store.reading import Readable

OTHERS = "(others)"
MOST_QUEUES = 50  # that are told apart: names come from people


@dataclass(frozen=True, slots=True, kw_only=True)
class Depth:
    """So many jobs are in that state. `queue` "": in none that has a name."""

    state: str
    substate: str
    queue: str
    jobs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """Whose job has that slot of a GPU."""

    gpu: str
    slot: int
    job: int
    uid: int
    user: str


def queue_depth(db: Readable) -> list[Depth]:
    """Costs as much as there are rows of jobs that have not ended."""
    rows = db.rows(_DEPTH)
    known = _largest(rows)
    depth: dict[tuple[str, str, str], int] = {}
    for row in rows:
        queue = row["queue"] if row["queue"] in known else OTHERS
        key = row["state"], row["substate"], queue
        depth[key] = depth.get(key, 0) + row["jobs"]
    return [
        Depth(state=state, substate=substate, queue=queue, jobs=jobs)
        for (state, substate, queue), jobs in depth.items()
    ]


def holders(db: Readable) -> list[Holder]:
    """Of leases of jobs that run, and of such as have ended and whose GPU still cools."""
    rows = db.rows(
        """
        select l.gpu, l.slot, l.job, s.uid, s.user
        from leases l join jobs j on j.id = l.job join specs s on s.id = j.spec
        order by l.gpu, l.slot
        """
    )
    return [Holder(**row) for row in rows]


def file_bytes(db: Readable) -> int:
    return int(db.value("select page_count * page_size from pragma_page_count, pragma_page_size"))


def _largest(rows: list[Row]) -> set[str]:
    """The queues with most jobs."""
    sizes: dict[str, int] = {}
    for row in rows:
        sizes[row["queue"]] = sizes.get(row["queue"], 0) + row["jobs"]
    return {"", *sorted(sizes, key=lambda queue: -sizes[queue])[:MOST_QUEUES]}


_DEPTH = """
select c.queue, j.state,
  case
    when j.state <> 'queued' then
      case when j.stop_asked_at is not null then 'stopping'
           when j.paused_by is not null then 'paused' else '' end
    when j.held_by is not null then 'held'
    when j.delayed_until_at is not null then iif(j.delayed_for = 'begin', 'delayed', 'backoff')
    when j.open_needs > 0 then 'needs'
    else ''
  end as substate,
  sum(j.last_id - j.id + 1) as jobs
from jobs j indexed by jobs_unended join classes c on c.id = j.class
where j.state <> 'ended'
group by 1, 2, 3
"""
