"""Whether an error signature says more than how the process ended."""

_OF_THE_END = (
    *("exit code ", "killed by ", "out of memory", "timed out: ", "lost: ", "could not start: "),
)


def is_from_output(signature: str | None) -> bool:
    """False where it repeats the reason of the end: then nothing that the program wrote told of an
    error."""
    return signature is not None and not signature.startswith(_OF_THE_END)
