"""The git work tree that a job is submitted in: which commit it stands at, and a copy of it as it is.

All of it runs in the process that submits, as the user who does: the daemon never runs git.
"""
