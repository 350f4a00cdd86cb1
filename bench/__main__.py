"""gpuq beside its peers and beside what the machine can do, measured in one run, in turn.

    python -m bench                    all of it, in under ten minutes
    python -m bench gap throughput     only these
    python -m bench --quick            fewer rounds: a look, no figure to quote
    python -m bench --list             what there is

The peers are installed below ~/.cache/gpuq-bench, from Debian and PyPI, and nothing on the machine is
changed. Who cannot be had is named in the table. Let nothing else run meanwhile.
"""

import argparse
import json
import signal
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Any

from bench import machine, table
from bench.figures import GPUQ, Row, Samples, as_json
from bench.measures import MEASURES, measure_named
from bench.peers.cast import PEERS, Cast
from bench.peers.gpuq import Gpuq
from bench.room import Room, loudly, room, told
from bench.scale import FULL, QUICK, TINY, Scale

RESULTS = Path(__file__).parent / "results" / "latest.json"
CACHE = Path.home() / ".cache" / "gpuq-bench"
SCALES = {"full": FULL, "quick": QUICK, "tiny": TINY}


def main() -> None:
    asked = arguments()
    if asked.list:
        for name, about in MEASURES.items():
            print(f"{name:16} {about}")
        return
    signal.signal(signal.SIGTERM, _leave)
    asked.peers.mkdir(parents=True, exist_ok=True)
    with room(scale_of(asked), asked.peers.resolve(), asked.room) as place:
        began = machine.load()
        cast = Cast(place, only=None if asked.only is None else frozenset(asked.only))
        versions = {GPUQ: Gpuq().version(place), **cast.versions}
        rows = measured(place, cast, asked.measures or list(MEASURES), asked.within)
        on = machine.described(place.folder)
    loads = (began, machine.load())
    write(asked.json, rows, on, versions, cast.absent, loads)
    draw = table.as_markdown if asked.markdown else table.as_text
    print(draw(rows), table.about(on, versions, loads), sep="\n\n")
    sys.exit(int(any(GPUQ in row.samples and row.samples[GPUQ].why_none for row in rows)))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("measures", nargs="*", metavar="MEASURE", help="these; all, unless said")
    parser.add_argument("--quick", action="store_true", help="the same as --scale quick")
    parser.add_argument("--scale", choices=SCALES, default="full")
    parser.add_argument("--within", type=float, default=540.0, metavar="SECONDS")
    parser.add_argument("--markdown", action="store_true", help="the table as Markdown")
    parser.add_argument("--json", type=Path, default=RESULTS, metavar="PATH")
    parser.add_argument("--peers", type=Path, default=CACHE, metavar="DIR")
    parser.add_argument("--only", nargs="*", metavar="PEER", help=f"of {', '.join(PEERS)}")
    parser.add_argument("--room", metavar="DIR", help="where its files go: /var/tmp")
    parser.add_argument("--list", action="store_true", help="what can be measured")
    asked = parser.parse_args()
    for name in asked.measures:
        if name not in MEASURES:
            parser.error(f"no measure is called {name}; there are {', '.join(MEASURES)}")
    for name in asked.only or ():
        if name not in PEERS:
            parser.error(f"no peer is called {name}; there are {', '.join(PEERS)}")
    return asked


def scale_of(asked: argparse.Namespace) -> Scale:
    return QUICK if asked.quick else SCALES[asked.scale]


def measured(place: Room, cast: Cast, names: list[str], within_s: float) -> list[Row]:
    """What has not begun when the time is over is left out, and the table says so."""
    rows: list[Row] = []
    began = time.monotonic()
    for name in names:
        at_s = time.monotonic() - began
        if at_s > within_s:
            rows.append(not_measured(name, f"{within_s:g} s were over: --within"))
            continue
        loudly(f"{at_s:4.0f} s  {name}: {MEASURES[name]}")
        try:
            rows += measure_named(name)(place, cast)
        except Exception as error:
            rows.append(not_measured(name, told(error)))
    return rows


def not_measured(name: str, why: str) -> Row:
    loudly(f"{name} WAS NOT MEASURED: {why}")
    return Row(work=MEASURES[name], unit=NO_UNIT, samples={GPUQ: Samples(why_none=why)})


NO_UNIT = "nothing measured"


def write(
    path: Path,
    rows: list[Row],
    on: dict[str, Any],
    versions: dict[str, str],
    absent: dict[str, str],
    loads: tuple[float, float],
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    told = {
        "machine": on,
        "load_average": {"began": loads[0], "ended": loads[1]},
        "versions": versions,
        "absent": absent,
        "rows": [as_json(row) for row in rows],
    }
    path.write_text(json.dumps(told, indent=2) + "\n")


def _leave(number: int, frame: FrameType | None) -> None:
    """What was started is ended on the way out."""
    sys.exit(128 + number)


if __name__ == "__main__":
    main()
