"""kill -9 of the daemon, and of who delivers, around the moment at which somebody is told: a webhook of
this machine counts how often."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.acceptance.faults.conftest import FaultyDaemon
from tests.conftest import until
from tests.hooked import Board, board

OF_DAEMON = (
    *("loop.news", "loop.news_committed", "notices.claiming", "notices.claimed"),
    *("notices.started", "notices.heard", "notices.noted"),
)

OF_WHO_DELIVERS = ("deliver.beginning", "deliver.begun", "deliver.done", "deliver.told")
OF_A_TRIAL = ("notices.asked",)


@pytest.fixture
def wall() -> Iterator[Board]:
    with board() as made:
        yield made


def end_of(daemon: FaultyDaemon, job: int) -> dict[str, Any]:
    """The notice of this job, once it is over."""
    with daemon.client() as client:

        def over() -> list[dict[str, Any]]:
            found = client.call("notices", refs=[str(job)])["notices"]
            return [one for one in found if one["ended_at"] is not None]

        (one,) = until(over, f"the notice of job {job}")
    return dict(one)


def test_an_end_is_told_once_wherever_the_daemon_dies(faulty: FaultyDaemon, wall: Board) -> None:
    for step in OF_DAEMON:
        wall.posts.clear()
        with faulty.client() as client, faulty.dying_at(step):
            job = client.submit(**faulty.job("exit 3"), on_end=f"{wall.url}/told")
            client.wait([job], timeout_s=20.0)
            one = end_of(faulty, job)
        assert (one["state"], one["tries"]) == ("done", 1), step
        assert [post.json["job"]["id"] for post in wall.posts] == [job], step
    assert not list((faulty.state / "notices").glob("*/*")), "no mark is left"


def test_what_may_have_been_told_is_not_told_again(faulty: FaultyDaemon, wall: Board) -> None:
    """Who delivers dies after its mark, before and after the post, and after it has said so."""
    for step, told, state in (
        ("deliver.begun", 0, "unknown"),
        ("deliver.done", 1, "unknown"),
        ("deliver.told", 1, "done"),
    ):
        wall.posts.clear()
        (faulty.faults / step).touch()
        with faulty.client() as client:
            job = client.submit(**faulty.job("exit 3"), on_end=f"{wall.url}/told")
            client.wait([job], timeout_s=20.0)
            one = end_of(faulty, job)
            assert (one["state"], one["tries"], len(wall.posts)) == (state, 1, told), step
            events = client.call("events", since=0, refs=[str(job)])["events"]
        failed = [event["cause"] for event in events if event["kind"] == "notice_failed"]
        assert len(failed) == (state == "unknown"), step


def test_both_die_and_what_may_have_been_told_is_not_told_again(
    faulty: FaultyDaemon, wall: Board
) -> None:
    (faulty.faults / "deliver.done").touch()
    with faulty.client() as client, faulty.dying_at("notices.heard"):
        job = client.submit(**faulty.job("exit 3"), on_end=f"{wall.url}/told")
        client.wait([job], timeout_s=20.0)
        one = end_of(faulty, job)
    assert (one["state"], one["tries"], len(wall.posts)) == ("unknown", 1, 1)


def test_who_dies_before_its_mark_has_told_nobody_and_another_does(
    faulty: FaultyDaemon, wall: Board
) -> None:
    (faulty.faults / "deliver.beginning").touch()
    with faulty.client() as client:
        job = client.submit(**faulty.job("exit 3"), on_end=f"{wall.url}/told")
        client.wait([job], timeout_s=20.0)
        one = end_of(faulty, job)
    assert (one["state"], len(wall.posts)) == ("done", 1)


def test_a_trial_that_was_asked_for_is_told(faulty: FaultyDaemon, wall: Board) -> None:
    with faulty.client() as client, faulty.dying_at("notices.asked"):
        client.call("test_notice", target=f"{wall.url}/told")
        until(lambda: wall.posts, "the trial")
