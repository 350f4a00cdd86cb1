"""Who comes back with a job that is requeued, and who cannot come back from a kill."""

from pathlib import Path

from gpuq.core.asked.needs import Need, When
from tests.daemon.asking import FOR_EVER, Asked, asked


def test_a_requeue_tells_who_was_skipped_for_it_alone(tmp_path: Path) -> None:
    async def deed(at: Asked) -> None:
        first = at.daemon.submit("exit 3")
        other = at.daemon.submit("exit 3")
        await at.daemon.ended(first)
        await at.daemon.ended(other)
        ok = Need(jobs=range(first, first + 1))
        alone = [at.daemon.submit("true", needs=(ok,)) for _ in range(2)]
        both = (ok, Need(jobs=range(other, other + 1)))
        of_both = at.daemon.submit("true", needs=both)
        met = at.daemon.submit("true", needs=(Need(jobs=ok.jobs, when=When.ANY),))
        for job in (*alone, of_both, met):
            await at.daemon.ended(job)
        (done,) = await at.do("requeue", first)
        assert (done["done"], done["with_it"]) == ("requeued", f"{alone[0]}-{alone[1]}")
        (done,) = await at.do("requeue", met)
        assert done["with_it"] is None

    asked(tmp_path, deed)


def test_an_undo_of_the_last_kill_tells_who_ran(tmp_path: Path) -> None:
    async def deed(at: Asked) -> None:
        ran = at.daemon.submit(FOR_EVER)
        before = at.daemon.submit(FOR_EVER)
        await at.daemon.running(ran)
        await at.daemon.running(before)
        await at.do("kill", before)
        waits = at.wait_for_ever()
        await at.do("kill", ran, waits)
        await at.daemon.ended(ran)
        await at.daemon.ended(waits)
        told = [(one["id"], one["done"]) for one in await at.do("undo")]
        assert told == [(waits, "undone"), (ran, "ran")]

    asked(tmp_path, deed)
