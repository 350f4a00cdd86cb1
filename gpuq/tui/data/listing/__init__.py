"""The list of jobs: which lines there are, in which order, and what is marked."""
