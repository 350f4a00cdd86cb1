"""Spool folders: a job file that a user drops into theirs becomes a job.

The daemon only notices that there is something. What lies there is opened, read and submitted by a
process that is the user: as the client that it is, over the socket, with no more rights than the user.
"""
