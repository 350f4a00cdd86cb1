"""Classes: what jobs that are interchangeable for the scheduler have in common."""

import json
from dataclasses import asdict

from gpuq.core.model import Request
from gpuq.daemon.store.connection import Database


def class_id(db: Database, uid: int, request: Request) -> int:
    """The class of jobs that ask like this, made where there is none."""
    shape = json.dumps(asdict(request), sort_keys=True)
    sql = "select id from classes where uid = ? and queue = '' and request = ?"
    known = db.value(sql, (uid, shape))
    if known is not None:
        return int(known)
    return db.insert("classes", {"uid": uid, "request": shape})


def read_request(text: str) -> Request:
    """A class's request as stored; fields of a newer gpuq are unknown to an older database only."""
    fields = json.loads(text)
    for name in ("gpu_ids", "exclude_gpus"):
        fields[name] = tuple(fields.get(name, ()))
    return Request(**fields)
