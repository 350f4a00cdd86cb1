"""Notices to a webhook and to an address of Apprise: both lead to a server of this machine."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.alive import Alive, MovedClock, with_alive
from tests.hooked import Board, board
from tests.noticed import notices, settled, tried


@pytest.fixture
def wall() -> Iterator[Board]:
    with board() as made:
        yield made


def test_a_webhook_is_posted_to_once_with_a_key(tmp_path: Path, wall: Board) -> None:
    async def deed(daemon: Alive) -> None:
        job = daemon.submit("true", on_end=f"{wall.url}/hook?token=abc")
        await daemon.ended(job)
        (end,) = await settled(daemon)
        assert (end["state"], end["output"]) == ("done", "HTTP 204\n")
        (post,) = wall.posts
        assert post.path == "/hook?token=abc"
        assert post.headers["content-type"] == "application/json"
        assert post.headers["idempotency-key"] == end["key"] == post.json["key"]
        assert post.json["job"]["id"] == job
        assert post.json["text"].startswith(f"job {job} sh: succeeded, of alice on ")

    with_alive(tmp_path, deed)


def test_a_webhook_that_says_no_is_told_without_its_token(tmp_path: Path, wall: Board) -> None:
    async def deed(daemon: Alive) -> None:
        wall.answers = [500]
        secret = f"http://user:passw0rd@{wall.place}/hooks/T0KEN?key=S3CRET"
        await daemon.ended(daemon.submit("true", on_end=secret))
        end = await tried(daemon, 1)
        assert end["trouble"] == "HTTP 500 Internal Server Error"
        assert end["output"] == "HTTP 500 Internal Server Error\nno hook /…/…?key=…\n"
        assert wall.posts[0].headers["authorization"] == "Basic dXNlcjpwYXNzdzByZA=="
        wall.close()
        clock.awake_s += 11
        daemon.loop.wake()
        end = await tried(daemon, 2)
        assert "refused" in end["trouble"]
        events = daemon.store.database.rows("select * from events")
        assert not any(word in str(events) for word in ("T0KEN", "S3CRET", "passw0rd"))
        assert not any(word in end["trouble"] for word in ("T0KEN", "S3CRET", "passw0rd"))

    clock = MovedClock()
    with_alive(tmp_path, deed, clock)


def test_a_webhook_that_has_moved_gets_the_same_post_there_and_not_for_ever(
    tmp_path: Path, wall: Board
) -> None:
    async def deed(daemon: Alive) -> None:
        wall.answers = [(307, "/there"), 204]
        await daemon.ended(daemon.submit("true", on_end=f"{wall.url}/here"))
        await settled(daemon)
        here, there = wall.posts
        assert (here.path, there.path) == ("/here", "/there")
        assert here.json == there.json
        wall.answers = [(302, "/round")] * 20
        wall.posts.clear()
        await daemon.ended(daemon.submit("true", on_end=f"{wall.url}/round"))
        await daemon.until(lambda: notices(daemon)[1]["trouble"], "the failure")
        assert notices(daemon)[1]["trouble"].startswith("HTTP 302")
        assert len(wall.posts) <= 5

    with_alive(tmp_path, deed)


def test_an_address_of_apprise_is_told_by_apprise(tmp_path: Path, wall: Board) -> None:
    pytest.importorskip("apprise")

    async def deed(daemon: Alive) -> None:
        job = daemon.submit("exit 1", on_end=f"json://{wall.place}/room")
        await daemon.ended(job)
        (end,) = await settled(daemon)
        assert (end["state"], end["output"]) == ("done", "delivered by Apprise\n")
        (post,) = wall.posts
        assert post.path.startswith("/room")
        assert (post.json["title"], post.json["type"]) == (f"job {job} sh: failed", "failure")
        assert "exit code 1" in post.json["message"]

    with_alive(tmp_path, deed)


def test_an_address_that_apprise_does_not_know_is_said_so(tmp_path: Path) -> None:
    pytest.importorskip("apprise")

    async def deed(daemon: Alive) -> None:
        await daemon.ended(daemon.submit("true", on_end="nosuchservice://T0KEN"))
        assert (await tried(daemon, 1))["trouble"] == (
            "Apprise knows no such address; see its list of services"
        )

    with_alive(tmp_path, deed)
