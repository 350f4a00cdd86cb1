"""The log of a job: bytes, lines, rows on the screen, hits."""
