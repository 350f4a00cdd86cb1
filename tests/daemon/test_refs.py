"""Which jobs are meant, by one request."""

import pytest

from gpuq.daemon.callers.peer import Peer
from gpuq.daemon.requests.refs import MOST_LOOKED_UP, MOST_SPANS, References
from gpuq.errors import UsageError
from tests.daemon.history import open_store

ALICE = Peer(uid=2001, gid=2001, pid=1, user="alice")


def test_ranges_that_overlap_or_touch_are_one() -> None:
    """Each would be looked up on its own, and a thousand of them look at each job a thousand times."""
    refs = References(open_store(":memory:").found)
    assert refs.resolve(["5-9", "1-3,7-20", "4", "30", "30"], ALICE) == [
        range(1, 21),
        range(30, 31),
    ]


@pytest.mark.parametrize(
    "refs",
    [
        [str(n) for n in range(MOST_SPANS + 1)],
        [",".join(["1"] * (MOST_SPANS + 1))],
        [f"g{n}" for n in range(MOST_LOOKED_UP + 1)],
    ],
    ids=["numbers", "in one word", "groups"],
)
def test_one_request_names_no_more_than_a_person_would(refs: list[str]) -> None:
    with pytest.raises(UsageError, match="name up to"):
        References(open_store(":memory:").found).resolve(refs, ALICE)


def test_a_name_is_no_reference_and_what_takes_names_is_told() -> None:
    with pytest.raises(UsageError, match=r"or g12\. Jobs of that name: gpuq group odd$"):
        References(open_store(":memory:").found).resolve(["odd"], ALICE)
    with pytest.raises(UsageError, match=r"or g12$"):
        References(open_store(":memory:").found).resolve(["8-"], ALICE)
