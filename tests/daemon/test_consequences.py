"""What a kill would do, asked before: it answers as the kill does, and does nothing."""

from pathlib import Path

import pytest

from gpuq.core.asked.needs import Need
from gpuq.errors import NothingMatched
from tests.daemon.asking import BEN, CAROL, FOR_EVER, Asked, asked


def test_it_answers_as_the_kill_does_and_ends_nothing(tmp_path: Path) -> None:
    async def deed(at: Asked) -> None:
        ended = at.daemon.submit("true")
        await at.daemon.ended(ended)
        runs = at.daemon.submit(FOR_EVER)
        await at.daemon.running(runs)
        waits = at.array(3)
        refs = (f"{ended}-{runs}", f"{waits[0]}-{waits[2]}")
        told = await at.ask("consequences", *refs)
        assert at.daemon.row(runs)["stop_asked_at"] is None
        assert [one["done"] for one in told["jobs"]] == ["already_ended", "stopping", "cancelled"]
        done = await at.do("kill", *refs)
        assert [one | {"user": "alice", "may": True} for one in done] == told["jobs"]

    asked(tmp_path, deed)


def test_it_says_who_waits_in_vain_and_whose_they_are(tmp_path: Path) -> None:
    async def deed(at: Asked) -> None:
        first = at.wait_for_ever()
        need = Need(jobs=range(first, first + 1))
        second = at.daemon.submit("true", needs=(need,))
        told = await at.ask("consequences", first)
        assert told["stranded"] == [f"{second} waits for {first} and would never start"]
        told = await at.ask("consequences", first, peer=BEN)
        assert (told["jobs"][0]["may"], told["jobs"][0]["user"]) == (False, "alice")
        assert told["stranded"] == [], "nobody asks what he may not do"
        told = await at.ask("consequences", first, peer=CAROL)
        assert told["jobs"][0]["may"]
        assert told["stranded"]
        with pytest.raises(NothingMatched):
            await at.ask("consequences", 99)

    asked(tmp_path, deed)


def test_a_screen_is_told_who_looks(tmp_path: Path) -> None:
    async def deed(at: Asked) -> None:
        news = await at.handlers.handle({"do": "subscribe"}, BEN)
        part = await anext(news)
        assert part["you"] == {"user": "bob", "uid": BEN.uid, "is_admin": False, "may_act": True}
        assert part["undo_for_s"] == at.daemon.config.undo_for
        await news.aclose()

    asked(tmp_path, deed)
