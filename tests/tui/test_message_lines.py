"""What is cut of a message that has no room: the command line, then ids, and not what came of it."""

from gpuq.tui.data.message_lines import message_lines
from gpuq.tui.data.messages import FRESH_S, Message, Messages

IDS = ",".join(str(number) for number in range(100, 400, 2))


def lines(
    text: str, command: str = "", *, room: int = 79, most: int = 4, beside: int = 0, **how: bool
) -> list[str]:
    message = Message(text=text, command=command, at=0.0, **how)
    found = message_lines(message, room, most, beside=beside, mark="(M)")
    assert all(len(line) <= room for line in found)
    assert len(found[-1]) <= room - beside
    return found


def test_what_has_room_is_whole() -> None:
    assert lines("Job 3 cancelled", "gpuq kill 3") == ["gpuq kill 3: Job 3 cancelled"]


def test_the_command_line_is_cut_first() -> None:
    (line,) = lines("Job 3 cancelled: it never started", f"gpuq kill {IDS}", beside=24)
    assert line.startswith("gpuq kill 10")
    assert line.endswith(" …: Job 3 cancelled: it never started (M)")
    (line,) = lines("Job 3 cancelled: it never started", f"gpuq kill {IDS}", room=45)
    assert line == "Job 3 cancelled: it never started (M)"


def test_then_the_ids() -> None:
    (line,) = lines(f"Jobs {IDS} cancelled: they never started", f"gpuq kill {IDS}", beside=24)
    assert line == "Jobs 100,…,398 cancelled: they never started (M)"


def test_more_lines_are_taken_before_a_result_is_cut() -> None:
    said = (
        "Job 1 cancelled: it never started; Job 2 stopping, KILL in 10 s; Job 3 had already ended"
    )
    found = lines(said, "gpuq kill 1-3", beside=24)
    assert len(found) > 1
    assert " ".join(found) == f"gpuq kill 1-3: {said}"
    assert lines(said, "gpuq kill 1-3", most=1)[0].endswith(" … (M)"), "of one line only"


def test_an_error_keeps_its_reason() -> None:
    why = "the disk is full, " * 8 + "the end of it"
    found = lines(why, f"gpuq hold {IDS}", is_error=True)
    assert len(found) <= 4
    assert " ".join(found).endswith(f"…: {why} (M)")


def test_what_came_of_no_deed_loses_its_middle() -> None:
    (line,) = lines("copied " + "x" * 200 + " to the end")
    assert line.startswith("copied x")
    assert line.endswith("to the end (M)")


def test_an_offer_stands_as_long_as_it_counts_down() -> None:
    messages = Messages()
    messages.add(Message(text="cancelled", at=100.0, undo_until=110.0))
    assert messages.shown(100.0 + FRESH_S + 1) is not None
    assert messages.shown(110.0) is None
