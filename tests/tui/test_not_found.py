"""What is said of a text that is not in a log."""

from gpuq.tui.data.log.not_found import not_found
from gpuq.tui.data.log.window import LogWindow


def held(begin: int, text: bytes) -> LogWindow:
    window = LogWindow()
    window.restart(begin)
    window.append([(text, begin + len(text))])
    return window


def test_it_is_said_in_which_part_it_is_not_and_how_the_whole_is_searched() -> None:
    lines = b"a\n" * 2000
    assert not_found("x", held(0, lines), size=4000, path="/l") == (
        "'x' is not in the log (2,000 lines)"
    )
    assert not_found("step 1", held(9, lines), size=4009, path="/a b/log") == (
        "'step 1' is not in the last 2,000 lines; the whole: grep -inF -- 'step 1' '/a b/log'"
    )
    assert not_found("Loss", held(0, lines), size=9000, path="/l") == (
        "'Loss' is not in the 2,000 lines that are held; the whole: grep -nF -- Loss /l"
    )
