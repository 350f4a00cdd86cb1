"""How far a job has come is read from the bar that tqdm draws in its log, where it is silent itself."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpuq.daemon import reports
from gpuq.daemon.attempt import progress
from gpuq.daemon.attempt.progress import BarWatch, find_bars, last_progress
from tests.alive import Alive, with_alive
from tests.desk import run

BAR = " 61%|██████    | 120/196 [03:31<02:13,  1.75s/it]"


@pytest.fixture(autouse=True)
def looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reports, "EVERY_S", 0.02)


@pytest.mark.parametrize(
    ("written", "fraction"),
    [
        (f"\r{BAR}", 120 / 196),
        (f"epoch 3: {BAR}, loss=0.25]", 120 / 196),
        (f"train:{BAR.strip()}", 120 / 196),
        ("\r  0%|          | 0/196 [00:00<?, ?it/s]", 0.0),
        ("\r100%|##########| 196/196 [05:00<00:00,  1.53s/it]\n", 1.0),
        ("\r 30%|###       | 1.20M/4.00M [00:01<00:02, 1.1MB/s]", 0.3),
        (f"\r 10%|#         | 1/10 [00:01<00:09]\r{BAR}", 120 / 196),
        (f"\r{BAR}\nsaved a checkpoint: 100% |done| 1/1\n", 120 / 196),
        (f" 50%|###| {'1' * 5000}/{'2' * 5000} [00:01<00:01]", 0.5),
        (f" 50%|###| {'1' * 400}/{'2' * 400} [00:01<00:01]", 0.5),
        ("12it [00:03,  3.9it/s]", None),
        ("cpu 50%| of | it", None),
        ("  7%|cut off | 12/1", None),
        ("250%|??????????| 5/2 [00:01<00:01]", None),
        ("x%|  | 5/20 [00:01<00:01]", None),
        ("", None),
    ],
)
def test_a_bar_says_how_far_it_is(written: str, fraction: float | None) -> None:
    assert progress_of(written) == fraction


def progress_of(written: str) -> float | None:
    bar = find_bars(written.encode()).outer
    return None if bar is None else bar.fraction


def test_of_bars_within_each_other_the_outermost_counts() -> None:
    outer = "\repochs:  20%|##        | 2/10 [00:01<00:04]"
    inner = "\n\rbatches:  90%|######### | 90/100 [00:00<00:00]\x1b[A"
    assert progress_of(f"{outer}{inner}{inner}") == 0.2
    assert progress_of(f"{inner}{inner}") is None, "and what was known of the outer stays"


class Written:
    """A log, and what its watch leaves."""

    def __init__(self, folder: Path) -> None:
        self.log = folder / "log"
        self.log.write_bytes(b"\r 50%|#####     | 1/2 [00:01<00:01]\n")  # of an earlier job
        self.folder = str(folder)
        reader = os.open(self.log, os.O_RDONLY)
        self.watch = BarWatch((-1, reader), self.folder)
        os.close(reader)

    def write(self, text: str) -> float | None:
        with self.log.open("a") as log:
            log.write(text)
        self.watch.look_at_once()
        return last_progress(self.folder)


@pytest.fixture
def written(tmp_path: Path) -> Iterator[Written]:
    one = Written(tmp_path)
    yield one
    one.watch.close()


def test_the_watch_reads_what_is_new_and_keeps_what_it_knows(written: Written) -> None:
    assert written.write("hello\n") is None, "what stood there before is not this job's"
    assert written.write("\r 10%|#         | 1/10 [00:01<00:09]") == 0.1
    assert written.write("x" * 3 * progress.MOST_BYTES) == 0.1
    assert written.write("\r 20%|##        | 2/1") == 0.1
    assert written.write("0 [00:01<00:09]") == 0.2, "one that was written in two parts"
    written.log.write_text("")
    assert written.write("\r 30%|###       | 3/10 [00:01<00:09]") == 0.3, (
        "of a log that was emptied"
    )


def test_a_bar_moves_where_its_counts_do(written: Written) -> None:
    def moves(text: str) -> bool:
        with written.log.open("a") as log:
            log.write(text)
        return written.watch.look_at_once()

    outer = "\repochs:  20%|##        | 2/10 [00:01<00:04]"
    inner = "\n\rbatches:  {0}%|###       | {0}/100 [00:00<00:00]\x1b[A"
    assert moves(outer)
    assert not moves("only words\n")
    assert not moves(outer.replace("00:01", "00:09")), "drawn anew, and not on"
    assert moves(inner.format(30)), "one within another counts as well"
    assert not moves(inner.format(30))
    assert moves(inner.format(31))
    assert moves(outer.replace("2/10", "3/10"))


def test_it_looks_once_a_second_and_makes_no_file_for_nothing(written: Written) -> None:
    written.watch.look(100.0)
    assert not Path(written.folder, progress.PROGRESS).exists()
    with written.log.open("a") as log:
        log.write("\r 10%|#         | 1/10 [00:01<00:09]")
    written.watch.look(100.5)
    assert last_progress(written.folder) is None
    written.watch.look(101.0)
    assert last_progress(written.folder) == 0.1


@pytest.mark.parametrize("content", [b"", b"rubbish", b"7.5\n", b"nan\n", b"-1\n", b"\xff\xff"])
def test_what_makes_no_sense_is_no_progress(tmp_path: Path, content: bytes) -> None:
    (tmp_path / progress.PROGRESS).write_bytes(content)
    assert last_progress(str(tmp_path)) is None


def test_a_pipe_in_its_place_keeps_nobody_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / progress.PROGRESS)
    assert last_progress(str(tmp_path)) is None


def test_whatever_is_wrong_with_a_log_its_runner_goes_on(tmp_path: Path) -> None:
    one = Written(tmp_path)
    os.close(one.watch._logs[0].reader)  # as a file system does that is taken away under it
    assert one.write("\r 10%|#         | 1/10 [00:01<00:09]") is None
    assert not one.watch.look(1e9)


def test_a_job_that_ends_at_once_has_come_as_far_as_its_bar(tmp_path: Path) -> None:
    run(tmp_path, "printf", "%s", f"\r{BAR}")
    assert last_progress(str(tmp_path / "state" / "attempts" / "1.1")) == pytest.approx(
        120 / 196, abs=1e-6
    )


def test_a_bar_on_a_stderr_of_its_own_is_seen(tmp_path: Path) -> None:
    script = f"printf '\\r{BAR.replace('%', '%%')}' >&2"
    run(tmp_path, "sh", "-c", script, stderr=str(tmp_path / "errors"))
    assert last_progress(str(tmp_path / "state" / "attempts" / "1.1")) is not None


def test_the_bar_of_a_real_loop_is_followed_until_the_job_reports_itself(tmp_path: Path) -> None:
    pytest.importorskip("tqdm")
    steps = [tmp_path / f"step{i}" for i in range(3)]
    code = f"""
import os, time
from tqdm import tqdm
steps = {[str(step) for step in steps]!r}
def wait(path):
    while not os.path.exists(path): time.sleep(0.01)
bar = tqdm(total=8, mininterval=0)
for inner in tqdm(range(50), position=1, leave=False, mininterval=0): pass
bar.update(2)
wait(steps[0])
bar.update(4)
wait(steps[1])
open(os.environ["GPUQ_REPORT"], "a").write('{{"v": {{"progress": 0.5}}}}\\n')
bar.update(1)
wait(steps[2])
"""

    async def deed(daemon: Alive) -> None:
        argv = (os.fsencode(sys.executable), b"-c", code.encode())
        job = daemon.submit("", argv=argv)

        def seen() -> tuple[float | None, str | None]:
            row = daemon.row(job)
            return row["progress"], row["progress_from"]

        await daemon.until(lambda: seen() == (0.25, "log"), "a quarter")
        steps[0].touch()
        await daemon.until(lambda: seen() == (0.75, "log"), "three quarters")
        steps[1].touch()
        await daemon.until(lambda: seen() == (0.5, "report"), "its own word")
        steps[2].touch()
        await daemon.ended(job)
        assert seen() == (0.5, "report")

    with_alive(tmp_path, deed)
