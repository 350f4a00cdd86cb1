"""Events that somebody is to be told of: the notice is stored with the event, so there is one for each,
however often somebody dies in between.
"""

import json
from collections.abc import Mapping
from typing import Any

from gpuq.core.asked.hooks import Moment
from gpuq.daemon.store.connection import Database, Row
from gpuq.daemon.store.elements import IS_OF

MOMENTS: Mapping[str, Moment] = {
    "running": Moment.START,
    "ended": Moment.END,
    "gpu_quarantined": Moment.GPU_PROBLEM,
}
MOST_WAITING = 100  # of one user
TOO_MANY = f"{MOST_WAITING} notices of this user wait already"


def queue_notices(db: Database, event: Mapping[str, Any]) -> bool:
    """Stores who is to be told of the event that was just inserted, by its columns; stands in its
    transaction. True where it is the first since there was room of which somebody is not told."""
    moment = MOMENTS[event["kind"]]
    is_of_job = moment is not Moment.GPU_PROBLEM
    values = {"moment": moment.value, "job": event["job"], "attempt": event["attempt"]}
    # Each start and each end of a job comes here, and few have somebody to tell.
    targets = db.row(
        _TARGETS.format(own=_OWN.format(moment.value) if is_of_job else "null"), values
    )
    assert targets is not None
    if targets["own"] is None and targets["standing"] is None:
        return False
    owner: Row = dict.fromkeys(("uid", "gid", "user"))
    row = {name: event[name] for name in ("job", "attempt", "gpu")}
    row |= {"event": db.value("select last_insert_rowid()"), "moment": moment.value}
    if is_of_job:
        owner = db.row(_OWNER, values) or owner
    row |= {name: owner[name] for name in ("uid", "gid", "user")} | {"made_at": event["now"]}
    is_news = False
    for origin, target in (("job", targets["own"]), ("settings", targets["standing"])):
        if target is not None:
            told = json.dumps(_told(event, owner, openly=origin == "settings"))
            is_news |= _put(db, row | {"origin": origin, "target": target, "told": told})
    return is_news


def _told(event: Mapping[str, Any], owner: Row, *, openly: bool) -> dict[str, Any]:
    """What the event says. What the settings name may be a room where everybody reads along: it is
    not told what a job wrote."""
    detail = json.loads(event["detail"] or "{}")
    reason = (event["open_cause"] if openly else None) or event["cause"]
    kept = {name: detail.get(name) for name in ("outcome", "exit_code", "signal", "last")}
    kept |= {name: owner.get(name) for name in ("submitted_at", "started_at", "ended_at")}
    kept |= {"gpus": json.loads(owner.get("gpus") or "[]"), "reason": reason}
    return kept | {"error": None if openly else owner.get("error")}


def _put(db: Database, row: Row) -> bool:
    """True where it is dropped, and the one before it of this user was not."""
    waiting = db.value(COUNT_WAITING, {"uid": row["uid"]})
    row = row | {"key": db.value(NEW_KEY)}
    if waiting < MOST_WAITING:
        db.insert("notices", row)
        return False
    counted = db.write(_COUNT_DROPPED, {"uid": row["uid"]})
    if not counted:
        over = {"state": "dropped", "ended_at": row["made_at"], "trouble": TOO_MANY}
        db.insert("notices", row | over)
    return not counted


_TARGETS = """
select {own} as own, (select target from hooks where moment = :moment) as standing
"""

_OWN = f"(select s.on_{{}} from jobs j join specs s on s.id = j.spec where {IS_OF})"

_OWNER = f"""
select s.uid, s.gid, s.user, j.submitted_at, j.started_at, j.ended_at,
       (select gpus -> 'indices' from attempts where job = :job and attempt = :attempt) as gpus,
       (select error_signature from attempts where job = :job and attempt = :attempt) as error
from jobs j join specs s on s.id = j.spec where {IS_OF}
"""

NEW_KEY = "select lower(hex(randomblob(16)))"

COUNT_WAITING = """
select count(*) from notices indexed by notices_open
where uid is :uid and state in ('waiting', 'claimed')
"""

_COUNT_DROPPED = """
update notices set stands_for = stands_for + 1
where id = (select max(id) from notices where uid is :uid) and state = 'dropped'
"""
