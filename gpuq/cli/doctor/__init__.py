"""What is wrong here, and what to do: each thing that a person would look at by hand, looked at.

Nothing is changed. Every look has a time limit, so that a disk, a driver or a daemon that hangs is a
finding and not the end of it. `look_over` has the list; what is looked at is a `Scene`.
"""
