"""Once more, and back from a cancel: who has ended waits again, and who runs begins anew."""

from pathlib import Path

import pytest

from gpuq.core.asked.needs import Need
from gpuq.core.model import EndCause, Exit, JobState, Outcome
from gpuq.daemon import bell
from gpuq.daemon.store import Store
from gpuq.errors import GpuqError, NothingMatched
from tests import stored
from tests.daemon.asking import BEN, FOR_EVER, SLOW_TO_END, Asked, asked
from tests.stored import BOB, NOW

# ── once more ──


def test_an_ended_job_runs_again_with_its_number_and_all_its_retries(tmp_path: Path) -> None:
    async def deed(at: Asked) -> None:
        job = at.daemon.submit("exit 3", retries=1, backoff="0s")
        assert (await at.daemon.ended(job))["attempt"] == 2
        behind = at.wait_for_ever()
        assert await at.done("requeue", job) == ["requeued"]
        await at.daemon.until(lambda: at.daemon.row(job)["attempt"] == 4, "two more attempts")
        told = await at.daemon.ended(job)
        assert (told["outcome"], told["exit_code"], told["place"]) == ("failed", 3, behind + 1)
        assert [one["outcome"] for one in at.daemon.attempts(job)] == ["failed"] * 4
        assert stored.kinds(at.store, job).count("requeued") == 1

    asked(tmp_path, deed)


def test_who_asks_right_after_a_requeue_hears_that_it_waits(tmp_path: Path) -> None:
    async def deed(at: Asked) -> None:
        job = at.daemon.submit("true")
        await at.daemon.ended(job)
        at.daemon.drain("quiet")
        await at.done("requeue", job)
        seen = await at.seen(job)
        assert (seen["state"], seen["outcome"], seen["ended_at"]) == ("queued", None, None)
        assert (seen["exit_code"], seen["started_at"]) == (None, None)
        assert at.daemon.row(job)["files_bytes"] is None
        at.daemon.drain(None)
        assert (await at.daemon.ended(job))["attempt"] == 2

    asked(tmp_path, deed)


def test_a_running_job_is_ended_and_begins_anew_and_that_is_no_retry(tmp_path: Path) -> None:
    async def deed(at: Asked) -> None:
        script = "[ -e second ] && exit 0; : > second; exec sleep 600"
        job = at.daemon.submit(script)
        await at.daemon.running(job)
        await at.daemon.until((tmp_path / "second").exists, "its first attempt to have begun")
        (one,) = await at.do("requeue", job)
        assert (one["done"], one["grace_s"]) == ("stopping", 10.0)
        told = await at.daemon.ended(job)
        assert (told["outcome"], told["attempt"]) == ("succeeded", 2)
        first, _ = at.daemon.attempts(job)
        assert (first["ending"], first["outcome"]) == ("requeued", "cancelled")
        assert first["reason"] == "requeued: ended by SIGTERM"
        assert "ended" not in stored.kinds(at.store, job)[:-1]

    asked(tmp_path, deed)


def test_a_kill_wins_over_a_requeue(tmp_path: Path) -> None:
    async def deed(at: Asked) -> None:
        job = at.daemon.submit(SLOW_TO_END)
        await at.daemon.running(job)
        await at.do("requeue", job)
        assert await at.done("kill", job) == ["stopping"]
        told = await at.daemon.ended(job)
        assert (told["outcome"], told["attempt"]) == ("cancelled", 1)
        assert told["reason"] == "cancelled by alice: exit code 0"
        await at.daemon.turn()
        assert at.daemon.row(job)["state"] == "ended"
        assert "given_back" not in stored.kinds(at.store, job)

    asked(tmp_path, deed)


def test_a_kill_that_comes_with_the_end_wins_too(tmp_path: Path) -> None:
    """The loop hears of the kill and of the end in one go: no signal was sent for the kill."""
    script = (
        "trap 'while ! [ -e go ]; do sleep 0.01; done; exit 0' TERM; while :; do sleep 0.01; done"
    )

    async def deed(at: Asked) -> None:
        job = at.daemon.submit(script)
        await at.daemon.running(job)
        await at.do("requeue", job)
        sent = "select term_delivered from attempts where job = ?"
        await at.daemon.until(lambda: at.store.database.value(sent, (job,)), "the TERM")
        at.store.wished.stop(job, grace_s=9.0, actor="alice", now=stored.NOW)
        (tmp_path / "go").touch()
        told = await at.daemon.ended(job)
        assert told["reason"] == "cancelled by alice: exit code 0"

    asked(tmp_path, deed)


def test_a_kill_right_behind_a_requeue_ends_it_too(tmp_path: Path) -> None:
    """Before the loop has come to it."""

    async def deed(at: Asked) -> None:
        job = at.daemon.submit("true")
        await at.daemon.ended(job)
        at.store.changed.requeue(job, job, actor="alice", now=stored.NOW)
        assert at.store.wished.stop(job, grace_s=1.0, actor="alice", now=stored.NOW)
        at.daemon.loop.wake()
        await at.daemon.turn()
        told = await at.daemon.ended(job)
        assert (told["outcome"], told["attempt"]) == ("cancelled", 1)

    asked(tmp_path, deed)


def test_who_waits_for_the_next_attempt_waits_no_more(tmp_path: Path) -> None:
    async def deed(at: Asked) -> None:
        job = at.daemon.submit("exit 3", retries=1, backoff="1h")
        await at.daemon.waits_again(job)
        assert await at.done("requeue", job) == ["waits_no_more"]
        assert (await at.daemon.ended(job))["attempt"] == 2
        assert at.daemon.row(job)["place"] == job, "in its place"

    asked(tmp_path, deed)


def test_what_cannot_be_requeued_is_refused_with_the_reason(tmp_path: Path) -> None:
    async def deed(at: Asked) -> None:
        waits = at.wait_for_ever()
        assert await at.why("requeue", waits) == "it is queued already"
        ending = at.daemon.submit(SLOW_TO_END)
        await at.daemon.running(ending)
        await at.do("kill", ending)
        assert await at.why("requeue", ending) == "it is being ended; wait for that"
        first = at.daemon.submit("true", key="nightly")
        await at.daemon.ended(first)
        second = at.wait_for_ever(key="nightly")
        assert await at.why("requeue", first) == (
            f"job {second} has its key 'nightly' and has not ended"
        )
        assert at.daemon.row(first)["state"] == "ended"

    asked(tmp_path, deed)


def test_who_was_skipped_is_told_what_would_bring_it_back(tmp_path: Path) -> None:
    async def deed(at: Asked) -> None:
        first = at.daemon.submit("exit 3")
        await at.daemon.ended(first)
        job = at.daemon.submit("true", needs=(Need(jobs=range(first, first + 1)),))
        await at.daemon.ended(job)
        skipped = f"skipped: {first} failed (exit code 3), and it was to succeed first"
        assert await at.why("requeue", job) == (
            f"{skipped}: requeue that, and this one comes back with it"
        )
        at.store.wished.prune([range(first, first + 1)], outputs=False, actor="alice", now=NOW)
        at.store.pruned.forget(at.store.pruned.wished(1), {}, now=NOW)
        assert await at.why("requeue", job) == (
            f"{skipped}. That is forgotten by now: submit this one anew"
        )

    asked(tmp_path, deed)


def test_a_job_whose_key_was_taken_meanwhile_stays_as_it_is(tmp_path: Path) -> None:
    """Between the wish and the deed."""

    async def deed(at: Asked) -> None:
        first = at.daemon.submit("true", key="nightly")
        await at.daemon.ended(first)
        at.store.changed.requeue(first, first, actor="alice", now=stored.NOW)
        second = at.wait_for_ever(key="nightly")
        await at.daemon.turn()
        assert at.daemon.row(first)["state"] == "ended"
        (event,) = [one for one in stored.events(at.store) if one["kind"] == "not_requeued"]
        assert event["cause"] == f"job {second} has its key and has not ended"
        assert at.store.current.to_requeue() == ()

    asked(tmp_path, deed)


def test_requeued_jobs_count_among_those_that_one_may_have_in_the_queue(tmp_path: Path) -> None:
    async def deed(at: Asked) -> None:
        first, second = at.daemon.submit("true"), at.daemon.submit("true")
        await at.daemon.ended(first)
        await at.daemon.ended(second)
        at.wait_for_ever()
        with pytest.raises(GpuqError, match="one user may have 2"):
            await at.ask("requeue", first, second)
        assert at.daemon.row(first)["requeue_asked_at"] is None
        assert await at.done("requeue", first) == ["requeued"]

    asked(tmp_path, deed, max_queued_per_user=2)


def test_a_file_keeper_that_comes_late_does_not_touch_what_runs_again(tmp_path: Path) -> None:
    """It chose the job while that had ended, and reports after it was queued again."""

    async def deed(at: Asked) -> None:
        job = at.daemon.submit("true")
        await at.daemon.ended(job)
        at.daemon.drain("quiet")
        await at.do("requeue", job)
        at.store.pruned.measured({job: 512})
        at.store.pruned.files_removed({job: 512}, cause="old", now=stored.NOW)
        assert at.daemon.row(job)["files_removed_at"] is None
        at.daemon.drain(None)
        await at.daemon.ended(job)

    asked(tmp_path, deed)


def test_elements_that_were_cancelled_are_requeued_as_one(tmp_path: Path) -> None:
    async def deed(at: Asked) -> None:
        jobs = at.array(1000)
        await at.do("kill", f"{jobs[0]}-{jobs[99]}")
        await at.daemon.until(lambda: at.rows()[jobs[0], jobs[99]] == "ended", "the cancel")
        (one,) = await at.do("requeue", f"{jobs[10]}-{jobs[19]}")
        assert (one["id"], one["last_id"]) == (jobs[10], jobs[19])
        assert at.rows() == {
            (jobs[0], jobs[9]): "ended",
            (jobs[10], jobs[19]): "queued",
            (jobs[20], jobs[99]): "ended",
            (jobs[100], jobs[999]): "queued",
        }
        assert at.daemon.row(jobs[10])["place"] == jobs[999] + 1

    asked(tmp_path, deed)


# ── undo ──


def test_a_cancel_is_undone_and_the_job_waits_where_it_was(tmp_path: Path) -> None:
    async def deed(at: Asked) -> None:
        jobs = [at.wait_for_ever() for _ in range(3)]
        await at.do("priority", jobs[1], priority=-3)
        await at.done("kill", jobs[1])
        await at.daemon.ended(jobs[1])
        assert await at.done("undo", jobs[1]) == ["undone"]
        told = at.daemon.row(jobs[1])
        assert (told["state"], told["outcome"], told["place"]) == ("queued", None, jobs[1])
        assert (told["priority"], told["stop_asked_at"], told["reason"]) == (-3, None, None)
        assert await at.why("undo", jobs[1]) == "it is queued, and nobody ended it"

    asked(tmp_path, deed)


def test_without_a_name_it_is_the_last_kill_that_is_undone(tmp_path: Path) -> None:
    async def deed(at: Asked) -> None:
        first, *others = [at.wait_for_ever() for _ in range(4)]
        bobs = stored.submit_one(at.store, by=BOB, held=True)
        await at.do("kill", first)
        await at.do("kill", *others)
        await at.do("kill", bobs, peer=BEN)
        for job in (first, *others, bobs):
            await at.daemon.ended(job)
        assert [one["id"] for one in await at.do("undo")] == others
        assert [one["id"] for one in await at.do("undo")] == [first], "and then the one before"
        with pytest.raises(NothingMatched, match="no kill of yours in the last"):
            await at.ask("undo")
        assert at.daemon.row(bobs)["state"] == "ended"

    asked(tmp_path, deed)


def test_a_held_job_comes_back_held_and_a_delayed_one_waits_on(tmp_path: Path) -> None:
    async def deed(at: Asked) -> None:
        held = at.daemon.submit("true", held=True)
        later = at.daemon.submit("exit 3", retries=1, backoff="1h")
        until_at = (await at.daemon.waits_again(later))["delayed_until_at"]
        await at.do("kill", held, later)
        await at.daemon.ended(later)
        assert (await at.seen(later))["delayed_until"] is None
        assert (await at.seen(later))["exit_code"] is None, "that was its attempt's"
        assert await at.done("undo") == ["undone", "undone"]
        await at.daemon.turn()
        assert at.daemon.row(held)["held_by"] == "alice"
        assert at.daemon.row(later)["delayed_until_at"] == until_at
        assert at.store.current.delayed()[0].until == pytest.approx(
            at.daemon.clock.boottime() + 3600, abs=30
        )

    asked(tmp_path, deed)


def test_the_last_kill_is_undone_that_its_turn_has_not_come_to_yet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bell, "SOON_S", 0.3)

    async def deed(at: Asked) -> None:
        before, last = at.wait_for_ever(), at.wait_for_ever()
        await at.do("kill", before)
        await at.daemon.ended(before)
        await at.do("hold", last)  # after a turn of just now the next one lets wait for it
        await at.do("kill", last)
        assert at.daemon.row(last)["state"] == "queued"
        assert [done["id"] for done in await at.do("undo")] == [last]
        assert at.daemon.row(before)["state"] == "ended"

    asked(tmp_path, deed)


def test_what_ran_or_was_long_ago_is_not_undone(tmp_path: Path) -> None:
    async def deed(at: Asked) -> None:
        ran, waited = at.daemon.submit(FOR_EVER), at.wait_for_ever()
        await at.daemon.running(ran)
        assert await at.why("undo", ran) == (
            "it runs; only the cancel of a job that waited can be undone"
        )
        await at.do("kill", ran, waited)
        await at.daemon.ended(ran)
        await at.daemon.ended(waited)
        assert await at.why("undo", ran) == (
            "it did not wait when it ended, so there is nothing to undo; "
            f"gpuq requeue {ran} runs it again"
        )
        long_ago = "update jobs set ended_at = ended_at - 700 where id = ?"
        stored.write(at.store, long_ago, waited)
        assert "and that can be undone for 10 min" in await at.why("undo", waited)

    asked(tmp_path, deed, undo_for="10m")


def test_a_job_that_was_requeued_and_cancelled_did_not_end_as_its_last_attempt(
    tmp_path: Path,
) -> None:
    async def deed(at: Asked) -> None:
        job = at.daemon.submit(FOR_EVER)
        await at.daemon.running(job)
        await at.do("kill", job)
        assert (await at.daemon.ended(job))["signal"] == 15
        at.daemon.drain("quiet")
        await at.do("requeue", job)
        await at.do("kill", job)
        await at.daemon.ended(job)
        seen = await at.seen(job)
        assert (seen["outcome"], seen["signal"]) == ("cancelled", None)
        assert await at.done("undo", job) == ["undone"]
        at.daemon.drain(None)

    asked(tmp_path, deed)


def test_a_lost_attempt_is_given_back_as_well() -> None:
    """The runner of a job that is to begin anew dies with it: it is queued again all the same."""
    store = Store(":memory:")
    job = stored.job_in(store, JobState.RUNNING)
    store.changed.requeue(job, job, actor="alice", now=stored.NOW)
    stored.step(store, job, cause=EndCause.REQUEUED)
    ended = stored.ended(job, Exit(lost="its runner died"), Outcome.CANCELLED)
    store.happened.give_back(ended, EndCause.REQUEUED, now=stored.NOW)
    told = stored.row(store, job)
    assert (told["state"], told["attempt"], told["uncounted"]) == ("queued", 1, 1)
    assert store.current.to_requeue() == (), "the wish was acted on"
    store.close()


# ── asked twice, since the answer was lost ──


def test_a_requeue_that_is_asked_again_does_not_end_what_runs_by_then(tmp_path: Path) -> None:
    async def deed(at: Asked) -> None:
        job = at.daemon.submit("[ $GPUQ_ATTEMPT = 1 ] || exec sleep 600")
        await at.daemon.ended(job)
        for _ in range(2):
            assert await at.done("requeue", job, token="abc") == ["requeued"]
            await at.daemon.running(job, attempt=2)
        await at.daemon.turn()
        assert (at.daemon.row(job)["attempt"], at.daemon.attempts(job)[1]["ending"]) == (2, None)
        assert await at.done("requeue", job, token="another") == ["stopping"]

    asked(tmp_path, deed)


def test_an_undo_that_is_asked_again_does_not_undo_the_kill_before(tmp_path: Path) -> None:
    async def deed(at: Asked) -> None:
        first, second = at.wait_for_ever(), at.wait_for_ever()
        for job in (first, second):
            await at.do("kill", job)
            await at.daemon.ended(job)
        for _ in range(2):
            assert [one["id"] for one in await at.do("undo", token="abc")] == [second]
        assert at.daemon.row(first)["state"] == "ended"

    asked(tmp_path, deed)


def test_a_wait_that_comes_back_is_measured_by_the_clock_of_this_boot() -> None:
    """The machine was restarted between the cancel and its undo."""
    store = Store(":memory:")
    job = stored.job_in(store, JobState.RUNNING)
    stored.fail(store, job, wait_s=60.0)
    store.wished.stop(job, grace_s=1.0, actor="alice", now=stored.NOW)
    store.happened.cancel(job, actor="alice", now=stored.NOW)
    assert store.inherited.stale_delays("next boot") == [], "who has ended waits for nothing"
    assert store.changed.undo(job, job, since=0.0, actor="alice", now=stored.NOW)
    store.returned.requeue(job, now=stored.NOW + 10, boottime=7.0, boot_id="next boot")
    (waits,) = store.current.delayed()
    assert (waits.id, waits.until) == (job, 57.0)
    assert store.inherited.stale_delays("next boot") == []
    store.close()
