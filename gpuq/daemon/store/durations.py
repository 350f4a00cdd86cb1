"""How long commands have run, for those who run them again. Written by the loop alone."""

from collections.abc import Sequence

from gpuq.core.scheduling.durations import Ran, remember
from gpuq.daemon.store.connection import Database
from gpuq.daemon.store.learned import command_hash, command_of, make_room


class Durations:
    def __init__(self, db: Database) -> None:
        self._db = db

    def known(self, uid: int, argv: Sequence[bytes], cwd: bytes, name: str) -> Ran | None:
        return self._known(uid, command_hash(argv, cwd, name))

    def known_of_all(self, uid: int) -> dict[bytes, Ran]:
        """By the hash of the command."""
        sql = "select command, longest_s, runs, last_job from durations where uid = ?"
        return {row.pop("command"): Ran(**row) for row in self._db.rows(sql, (uid,))}

    def known_of(self, job: int) -> Ran | None:
        """Of this job's command."""
        return self._known(*command_of(self._db, job))

    def learn(self, job: int, ran_s: float, *, now: float) -> None:
        """The job has succeeded after so long, without its pauses."""
        with self._db.transaction():
            uid, command = command_of(self._db, job)
            before = self._known(uid, command)
            ran = remember(ran_s, before, job)
            if before is None:
                make_room(self._db, "durations", uid)
            self._db.write(
                "insert or replace into durations (uid, command, longest_s, runs, last_job, at) "
                "values (?, ?, ?, ?, ?, ?)",
                (uid, command, ran.longest_s, ran.runs, ran.last_job, now),
            )

    def _known(self, uid: int, command: bytes) -> Ran | None:
        sql = "select longest_s, runs, last_job from durations where uid = ? and command = ?"
        row = self._db.row(sql, (uid, command))
        return None if row is None else Ran(**row)
