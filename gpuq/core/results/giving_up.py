"""What becomes of a group whose jobs fail: `on_failure = continue|stop:N`."""

from gpuq.core.model import Outcome

GO_ON = "continue"
MOST_FAILURES = 10_000  # they are counted at each of them

# Ends that speak against what was submitted. Somebody's cancel does not, nor what was skipped for it.
FAILURES = (Outcome.FAILED, Outcome.TIMED_OUT, Outcome.OUT_OF_MEMORY, Outcome.LOST)


def parse_on_failure(text: str) -> int:
    """After how many failures the rest of a group is not begun; 0: it goes on. ValueError says what is
    wrong with it."""
    word = text.strip().lower()
    if word == GO_ON:
        return 0
    how, _, number = word.partition(":")
    is_number = number.isascii() and number.isdecimal() and len(number) <= 7
    if how == "stop" and is_number and 0 < int(number) <= MOST_FAILURES:
        return int(number)
    raise ValueError(
        f"{text[:40]!r} is neither {GO_ON} nor stop:N, like stop:3, with N up to {MOST_FAILURES:,}"
    )


def format_on_failure(stop_after: int | None) -> str:
    return f"stop:{stop_after}" if stop_after else GO_ON


def is_given_up(stop_after: int, *, failed: int, succeeded: bool) -> bool:
    """One success shows that the others can succeed too."""
    return not succeeded and failed >= stop_after


def why_given_up(group: int, stop_after: int, failed: int) -> str:
    return (
        f"not begun: {failed} of g{group} failed and none succeeded "
        f"(on_failure {format_on_failure(stop_after)})"
    )
