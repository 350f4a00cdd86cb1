"""How far a job has come, as it says so itself. Imports nothing: each `gpuq report` looks here."""

LONGEST_WORD = 80  # signs of what is none
FUZZ = 1e-6  # by so much may a sum of fractions be more than 1


def not_a_progress(value: object) -> str | None:
    """What is wrong with it; None where it is one, from 0 to 1."""
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1 + FUZZ:
        return None
    said = str(value).encode("utf-8", "replace").decode()
    said = said if len(said) <= LONGEST_WORD else said[: LONGEST_WORD - 1] + "…"
    return f"progress is a number from 0 to 1, and not {said}"
