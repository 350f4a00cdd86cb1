"""Which copies of work trees are still needed."""

import json
from collections.abc import Sequence

from gpuq.daemon.store.connection import Database


class Snapshots:
    def __init__(self, db: Database) -> None:
        self._db = db

    def needed(self, uid: int, names: Sequence[str], *, since: float) -> set[str]:
        """Those of a user's copies that a job has which has not ended, or has ended since then and
        has its files still. Costs as much as there are jobs with these copies."""
        rows = self._db.rows(
            """
            select name.value as name from json_each(:names) name
            where exists (
              select 1 from specs s join jobs j on j.spec = s.id
              where s.uid = :uid and s.snapshot = name.value
                and (j.state <> 'ended' or (j.files_removed_at is null and j.ended_at >= :since)))
            """,
            {"names": json.dumps(list(names)), "uid": uid, "since": since},
        )
        return {row["name"] for row in rows}
