"""How busy GPUs were, as the strip keeps it."""

from gpuq.tui.data.gpus.past import GpuPast, rings_of
from tests.cli.said import Said, gpu

NOW = 1_790_000_000.0


def busy(util: float | None) -> list[Said]:
    return [gpu(0, utilization_percent=util)]


def test_what_is_told_goes_on_where_the_daemon_ended() -> None:
    past = GpuPast()
    rows = {"GPU-0": {"utilization_percent": [None, 10.0, 20.0]}}
    past.load(rings_of({"begin_at": NOW - 2.0, "step_s": 1.0, "gpus": rows}))
    past.take(busy(40), NOW + 1.0)
    assert past.means("GPU-0", 5.0, 5, NOW + 1.0) == [None, None, 10.0, 20.0, 40.0]
    assert past.means("GPU-9", 5.0, 5, NOW) == [None] * 5


def test_it_reads_as_before_until_something_else_is_told() -> None:
    past = GpuPast()
    past.take(busy(40), NOW)
    past.take(busy(None), NOW + 3.0)
    past.take(busy(60), NOW + 4.0)
    assert past.means("GPU-0", 6.0, 6, NOW + 4.0) == [None, 40.0, 40.0, 40.0, None, 60.0]


def test_what_was_missed_is_a_gap() -> None:
    past = GpuPast()
    past.take(busy(40), NOW)
    past.forget_last()
    past.take(busy(60), NOW + 2.0)
    assert past.means("GPU-0", 3.0, 3, NOW + 2.0) == [40.0, None, 60.0]


def test_a_clock_that_is_set_back_begins_anew() -> None:
    past = GpuPast()
    past.take(busy(40), NOW)
    past.take(busy(60), NOW - 3600.0)
    assert past.means("GPU-0", 2.0, 2, NOW - 3600.0) == [None, 60.0]


def test_a_gpu_that_is_gone_is_forgotten() -> None:
    past = GpuPast()
    past.take([gpu(0), gpu(1)], NOW)
    past.take([gpu(0)], NOW + 1.0)
    assert past.means("GPU-1", 2.0, 2, NOW + 1.0) == [None, None]
