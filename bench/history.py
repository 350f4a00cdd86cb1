"""A database with a long history, made in seconds: what a daemon wrote of one array that ran is copied
as often as it takes, while no daemon is there. The copies are older, and their events are gone, as
those of old jobs are."""

from pathlib import Path

import apsw

# By how much a column of a copy is more than it was: a number of jobs, or of specs (one for an array).
OF_JOBS, OF_SPECS = "jobs", "specs"
SHIFTED = {
    "specs": {"id": OF_SPECS},
    "groups": {"id": OF_JOBS},
    "group_spans": {"group_id": OF_JOBS, "first": OF_JOBS, "last": OF_JOBS},
    "jobs": {
        "id": OF_JOBS,
        "last_id": OF_JOBS,
        "group_id": OF_JOBS,
        "array_first": OF_JOBS,
        "place": OF_JOBS,
        "spec": OF_SPECS,
    },
    "attempts": {"job": OF_JOBS},
}
# The rows of the array in each table.
OF_ARRAY = {
    "specs": "id = :spec",
    "groups": "id = :first",
    "group_spans": "group_id = :first",
    "jobs": "id between :first and :last",
    "attempts": "job between :first and :last",
}
OLDER_S = 40 * 86400
TIMES = ("submitted_at", "started_at", "ended_at", "committed_at")


def lengthen(path: Path, first: int, number: int, copies: int) -> None:
    """`first` and `number` are of an array whose jobs have all ended, and after which nothing else was
    submitted."""
    database = apsw.Connection(str(path))
    try:
        database.execute("pragma journal_mode = off; pragma synchronous = off").fetchall()
        with database:
            _copy(database, first, number, copies)
        database.execute("pragma journal_mode = wal").fetchall()
    finally:
        database.close()


def _copy(database: apsw.Connection, first: int, number: int, copies: int) -> None:
    spec = database.execute("select spec from jobs where id = ?", (first,)).get
    last_spec = database.execute("select max(id) from specs").get
    known = {"first": first, "last": first + number - 1, "spec": spec, "copies": copies}
    known |= {OF_JOBS: number, OF_SPECS: 1, "older": OLDER_S}
    if spec != last_spec:
        raise ValueError("something was submitted after the array")
    for table, shifts in SHIFTED.items():
        columns = [row[1] for row in database.execute(f"pragma table_info({table})")]
        values = ", ".join(_value(column, shifts) for column in columns)
        names = ", ".join(f'"{column}"' for column in columns)
        database.execute(
            "with recursive copies (n) as"
            " (values (1) union all select n + 1 from copies where n < :copies)"
            f" insert into {table} ({names}) select {values} from copies, {table}"
            f" where {OF_ARRAY[table]}",
            known,
        )


def _value(column: str, shifts: dict[str, str]) -> str:
    if column in shifts:
        return f'"{column}" + n * :{shifts[column]}'
    if column in TIMES:
        return f'"{column}" - :older'
    return f'"{column}"'
