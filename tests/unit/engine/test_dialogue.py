"""What the proxies are told of the job."""

from __future__ import annotations

import threading
import types
from collections.abc import Callable
from typing import Any, cast

from fed.engine.dialogue import Dialogue
from fed.engine.shell import Shell
from fed.proxy.control import Snapshot


def test_changes_that_come_together_are_published_once() -> None:
    steps: list[Callable[[], None]] = []
    published: list[Snapshot] = []
    shell: Any = types.SimpleNamespace(
        lock=threading.Lock(),
        joined_at=1.0,
        errors=types.SimpleNamespace(run=steps.append),
        running=lambda: types.SimpleNamespace(number=0),
        running_proxies=lambda: types.SimpleNamespace(direct=types.SimpleNamespace(publish=published.append)),
    )
    dialogue = Dialogue(cast(Shell, shell))
    for peers in (("bob", "carol", "dave"), ("erin", "frank")):
        for peer in peers:
            with shell.lock:
                dialogue.departed(peer, None)
        (step,) = steps
        steps.clear()
        step()
        # As it is when it is told.
        assert set(peers) <= published[-1].left.keys()
    assert [len(snapshot.left) for snapshot in published] == [3, 5]
