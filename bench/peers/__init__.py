"""The others: each is installed below one folder, started with a queue of its own, and stopped again.

peer.start(room, slots=2)       a queue that runs so many jobs at a time
peer.submit(argv)               one job, in the way that is quickest for it
peer.submit_many(argv, 1000)    so many alike in one go, where it can
peer.stop()                     and nothing of it is left
"""

from collections.abc import Sequence
from typing import Protocol

from bench.room import Room

NOT_IN_ONE_GO = "takes one at a time"


class Absent(Exception):
    """Says why a peer cannot be measured here, and what would make it."""


class Peer(Protocol):
    """`takes_many`: it has a way to submit many alike in one go. `is_slow`: about a second for each
    job, so it is given few of them."""

    name: str
    takes_many: bool
    is_slow: bool

    def version(self, room: Room) -> str:
        """Absent where it is not there and cannot be had."""

    def start(self, room: Room, slots: int) -> None: ...

    def submit(self, argv: Sequence[str]) -> object: ...

    def submit_many(self, argv: Sequence[str], number: int) -> object: ...

    def stop(self) -> None: ...
