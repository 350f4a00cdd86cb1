"""What commands have used of a GPU, for those who ask for as much again. Written by the loop alone."""

from collections.abc import Sequence
from functools import lru_cache
from hashlib import sha256

from gpuq.core.asked.wire_fields import split
from gpuq.core.gpus.learned import Known, program_words, remember
from gpuq.daemon.store.connection import Database
from gpuq.daemon.store.elements import IS_OF

# Of one user. Whoever names each job differently would fill the table; what is used least lately
# goes first.
MOST_COMMANDS = 1000


class Learned:
    def __init__(self, db: Database) -> None:
        self._db = db

    def known(self, uid: int, argv: Sequence[bytes], cwd: bytes, name: str) -> Known | None:
        return self._known(uid, command_hash(argv, cwd, name))

    def learn(self, job: int, peak_bytes: int, *, now: float) -> None:
        """The job has succeeded and used so much of a GPU at the most."""
        with self._db.transaction():
            uid, command = command_of(self._db, job)
            before = self._known(uid, command)
            known = remember(peak_bytes, before, job)
            if before is None:
                make_room(self._db, "learned", uid)
            self._db.write(
                "insert or replace into learned (uid, command, peak_bytes, runs, last_job, at) "
                "values (?, ?, ?, ?, ?, ?)",
                (uid, command, known.peak_bytes, known.runs, known.last_job, now),
            )

    def forget(self, job: int) -> None:
        """What was known of its command was too little."""
        with self._db.transaction():
            which = command_of(self._db, job)
            self._db.write("delete from learned where uid = ? and command = ?", which)

    def _known(self, uid: int, command: bytes) -> Known | None:
        sql = "select peak_bytes, runs, last_job from learned where uid = ? and command = ?"
        row = self._db.row(sql, (uid, command))
        return None if row is None else Known(**row)


def command_of(db: Database, job: int) -> tuple[int, bytes]:
    """Whose job it is, and the hash of its command."""
    row = db.row(
        f"""
        select s.uid, s.argv, s.cwd, s.name from jobs j join specs s on s.id = j.spec
        where {IS_OF}
        """,
        {"job": job},
    )
    assert row is not None
    return row["uid"], command_hash(split(row["argv"]), row["cwd"], row["name"])


def make_room(db: Database, table: str, uid: int) -> None:
    """For one more command of this user among those that a table knows."""
    known = db.value(f"select count(*) from {table} where uid = ?", (uid,))
    if known >= MOST_COMMANDS:
        db.write(
            f"""
            delete from {table} where uid = :uid and command in (
              select command from {table} where uid = :uid order by at limit :many
            )
            """,
            {"uid": uid, "many": known - MOST_COMMANDS + 1},
        )


def command_hash(argv: Sequence[bytes], cwd: bytes, name: str) -> bytes:
    """Of what makes two runs the same command: program, directory, and what the job is called."""
    return _hash_of(program_words(argv), cwd, name)


@lru_cache(maxsize=1024)  # most that is submitted was submitted before, with other options
def _hash_of(words: tuple[bytes, ...], cwd: bytes, name: str) -> bytes:
    """None of the words holds a NUL, so no two commands are joined to the same bytes."""
    parts = [str(len(words)).encode(), *words, cwd, name.encode()]
    return sha256(b"\0".join(parts)).digest()
