"""Rows that stand for many jobs: the elements of an array that do not differ yet.

A row holds the jobs `id` to `last_id`. Before something befalls some of them alone, a wish or a fact,
the row is split, so that these have a row of their own. What that costs depends on how many rows
there are in the span, never on how many jobs.
"""

from functools import cache

from gpuq.daemon.store.connection import Database, Row

LARGEST = 2**62  # far beyond any id


def single_out(db: Database, first: int, last: int) -> None:
    """No row reaches beyond the jobs `first` to `last` from within any more: one that did is split.
    Stands in the transaction of what is to befall them."""
    if _split(db, first) != last:
        _split(db, last + 1)


def span_detail(first: int, last: int) -> dict[str, int]:
    """What an event says beside its job where it tells of a run of them."""
    return {} if first == last else {"last": last}


def row_of(db: Database, job: int) -> Row | None:
    """The row that this job is in."""
    row = db.row("select * from jobs where id <= ? order by id desc limit 1", (job,))
    return row if row is not None and job <= row["last_id"] else None


# The row of one job, with its id as :job, among `jobs j`.
IS_OF = "j.id = (select max(id) from jobs where id <= :job) and j.last_id >= :job"


def _split(db: Database, at: int) -> int | None:
    """A row that holds this job and one before it becomes two. Each job keeps its place. Returns the
    last job of the row that this one is in now."""
    row = db.row("select id, last_id from jobs where id <= ? order by id desc limit 1", (at,))
    if row is None or row["last_id"] < at:
        return None
    first, last = row["id"], int(row["last_id"])
    if first == at:
        return last
    db.write("update jobs set last_id = ? where id = ?", (at - 1, first))
    db.write(_rest_of_row(tuple(db.columns("jobs"))), {"row": first, "at": at, "last": last})
    return last


@cache
def _rest_of_row(columns: tuple[str, ...]) -> str:
    """Inserts the jobs :at to :last, which were in a row, as a row of their own."""
    own = {"id": ":at", "last_id": ":last", "place": "place + :at - id"}
    values = ", ".join(own.get(name, name) for name in columns)
    return f"insert into jobs ({', '.join(columns)}) select {values} from jobs where id = :row"


# The parts of rows that lie in spans of ids, given as a JSON list of [first, last] that lie apart
# from each other. However many there are: each is looked up by its ends.
IN_SPANS = """
json_each({spans}) span
cross join jobs j on j.id between
    coalesce((select max(id) from jobs where id <= span.value ->> 0), span.value ->> 0)
    and span.value ->> 1
  and j.last_id >= span.value ->> 0
"""
FIRST_IN_SPAN = "max(j.id, span.value ->> 0)"
LAST_IN_SPAN = "min(j.last_id, span.value ->> 1)"
