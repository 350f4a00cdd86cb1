"""Who is there to be measured beside gpuq, found once, and started anew for each measure."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager

from bench.figures import Samples
from bench.peers import Absent, Peer
from bench.peers.gflow import Gflow
from bench.peers.hyperqueue import HyperQueue
from bench.peers.slurm import Slurm
from bench.peers.task_spooler import TaskSpooler
from bench.room import Room, loudly, told

PEERS: Mapping[str, type[Peer]] = {
    peer.name: peer for peer in (TaskSpooler, HyperQueue, Slurm, Gflow)
}


class Cast:
    """`versions` of those that are there, and of the others `absent`: why they are not."""

    def __init__(self, room: Room, *, only: frozenset[str] | None = None) -> None:
        self._room = room
        self.versions: dict[str, str] = {}
        self.absent: dict[str, str] = {}
        for name, peer in PEERS.items():
            if only is not None and name not in only:
                self.absent[name] = "left out by --only"
                continue
            try:
                self.versions[name] = peer().version(room)
            except Absent as why:
                self._is_absent(name, str(why))
            except (OSError, RuntimeError, ValueError) as error:
                self._is_absent(name, told(error))

    @contextmanager
    def started(self, slots: int, *names: str) -> Iterator[dict[str, Peer]]:
        """All that are there, or those of them that are named; each runs `slots` jobs at a time."""
        with ExitStack() as stack:
            there: dict[str, Peer] = {}
            for name in names or PEERS:
                if name in self.versions:
                    peer = PEERS[name]()
                    stack.callback(peer.stop)
                    try:
                        peer.start(self._room, slots)
                    except (OSError, RuntimeError, TimeoutError) as error:
                        self._is_absent(name, told(error))
                        del self.versions[name]
                    else:
                        there[name] = peer
            yield there

    def why_none(self, *names: str) -> dict[str, Samples]:
        """For a row: those that are absent."""
        return {
            name: Samples(why_none=self.absent[name])
            for name in names or PEERS
            if name in self.absent
        }

    def _is_absent(self, name: str, why: str) -> None:
        self.absent[name] = why
        loudly(f"{name} IS NOT MEASURED: {why}")
