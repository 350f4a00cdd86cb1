"""What the daemon and its probe say to each other: one JSON object a line, each with a number.

    {"sample": 3, "held": [[uuid, job, pid, bytes], …], "processes": true}
      → {"sample": 3, "gpus": [{…}, …]}
     or {"sample": 3, "unavailable": "why"}

With "processes" false a list of processes that is some seconds old will do. A probe that is started
after an upgrade may be newer than its daemon: what it is not told it takes as true, and fields that
the daemon does not know are dropped.
"""

import json
from collections.abc import Sequence
from typing import Any

from gpuq.core.gpus.gpu import Gpu, GpuProcess
from gpuq.daemon.gpus.backend import GpusUnavailable, Held


def encode_request(number: int, held: Sequence[Held], processes: bool = True) -> bytes:
    return _line({"sample": number, "held": held, "processes": processes})


def decode_request(line: bytes) -> tuple[int, list[Held], bool]:
    """The number, what is held, and whether processes are wanted as of now."""
    request = json.loads(line)
    held = [(one[0], one[1], one[2], one[3]) for one in request["held"]]
    return request["sample"], held, request.get("processes", True)


def encode_reading(number: int, gpus: Sequence[Gpu]) -> bytes:
    return _line({"sample": number, "gpus": [_gpu_fields(gpu) for gpu in gpus]})


def encode_unavailable(number: int, why: str, *, is_absent: bool = False) -> bytes:
    return _line({"sample": number, "unavailable": why, "absent": is_absent})


def decode_answer(line: bytes, number: int) -> list[Gpu]:
    """Raises GpusUnavailable, and ValueError for what is no answer to this request."""
    try:
        answer = json.loads(line)
        if answer["sample"] != number:
            raise ValueError("an answer to another request")
        if "unavailable" in answer:
            raise GpusUnavailable(answer["unavailable"], is_absent=bool(answer.get("absent")))
        return [_gpu(fields) for fields in answer["gpus"]]
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"no answer: {error!r}") from error


def _line(message: dict[str, Any]) -> bytes:
    return json.dumps(message, separators=(",", ":")).encode() + b"\n"


def _gpu_fields(gpu: Gpu) -> dict[str, Any]:
    fields = _fields(gpu)
    if gpu.processes is not None:
        fields["processes"] = [_fields(process) for process in gpu.processes]
    return fields


def _fields(value: Gpu | GpuProcess) -> dict[str, Any]:
    return {name: getattr(value, name) for name in value.__slots__}


def _gpu(fields: dict[str, Any]) -> Gpu:
    known = _known(Gpu, fields)
    if known.get("processes") is not None:
        known["processes"] = tuple(
            GpuProcess(**_known(GpuProcess, process)) for process in known["processes"]
        )
    for name in ("warnings", "xids"):
        known[name] = tuple(known.get(name, ()))
    known["links"] = tuple((uuid, far) for uuid, far in known.get("links", ()))
    return Gpu(**known)


def _known(kind: type[Gpu] | type[GpuProcess], fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name in kind.__slots__}
