"""Why jobs wait, in the words of those who decided it."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from gpuq.core.model import Request, Snapshot
from gpuq.core.states import CAUSES


@dataclass(slots=True, eq=False)
class Reasons(Mapping[int, str]):
    """The reasons of a plan. To find out what keeps a blocked job costs more than to see that something
    does, so it is done for those that somebody asks about."""

    explain: Callable[[int, Request], str]
    said: dict[int, str] = field(default_factory=dict)
    unexplained: dict[int, Request] = field(default_factory=dict)  # blocked jobs

    def __getitem__(self, job: int) -> str:
        if job not in self.said:
            self.said[job] = self.explain(job, self.unexplained[job])
        return self.said[job]

    def __iter__(self) -> Iterator[int]:
        return iter([*self.said.keys() - self.unexplained, *self.unexplained])

    def __len__(self) -> int:
        return len(self.said.keys() | self.unexplained)


def standstill(snapshot: Snapshot) -> str | None:
    """Why nothing at all is started."""
    if (closing := snapshot.closing) is not None:
        return CAUSES[closing.cause]
    if (drain := snapshot.drain) is not None:
        return f"the queue is drained by {drain.actor}: {drain.reason}"
    return snapshot.start_trouble
