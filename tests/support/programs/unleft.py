"""Joins by `fed.init` and never leaves. ``unleft.py dies`` in alice's driver, ``unleft.py unread`` in a task."""

import sys

import fed


@fed.remote
def fail() -> None:
    raise KeyError("canary-4711")


@fed.remote
def one() -> int:
    return 1


fed.init()
if sys.argv[1] == "unread":
    fail.party("alice").remote()
elif fed.party() == "alice":
    raise OSError("canary-4711")
else:
    fed.get(one.party("alice").remote())
