"""What is measured: each module one kind of work, done by gpuq, by its peers and by the limit in turn.

measure(room, cast)    the rows of the table
"""

from collections.abc import Callable, Sequence
from importlib import import_module

from bench.figures import Row
from bench.peers.cast import Cast
from bench.room import Room

Measure = Callable[[Room, Cast], Sequence[Row]]

# In the order in which they run: what is cheap and what matters first.
MEASURES = {
    "throughput": "1,000 no-op jobs on 2 slots, to the last outcome",
    "gap": "the gap between two jobs on one slot",
    "start_delay": "from submit to start on an idle daemon",
    "submit_process": "gpuq submit as a whole process",
    "commands": "status, show, kill, wait and logs as whole processes",
    "submits": "submits on one connection and in a batch, beside bare commits",
    "kill": "kill --now of a tree of twelve processes",
    "speed_up": "equal jobs on several GPUs, against one",
    "idle": "an idle daemon with 8 GPUs: CPU, memory, disk; a runner that waits",
    "watchers": "the gap while a thousand connections watch",
    "queue_length": "what a long queue costs: turn, gap, submit, status, memory",
    "restart": "restart with a long history and many live jobs",
    "training": "steps per second of a training loop, under gpuq and bare",
}


def measure_named(name: str) -> Measure:
    found: Measure = import_module(f"bench.measures.{name}").measure
    return found
