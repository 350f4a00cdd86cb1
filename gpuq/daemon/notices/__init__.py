"""Telling people and programs of what happened: a command, a webhook, an address of Apprise.

The daemon claims a notice in its database and starts a process that delivers it, which marks the moment
from which on it may have happened. Whoever of them dies, the next daemon finds out by that mark.
"""
