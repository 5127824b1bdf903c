"""How a party joins the job: its proxies start, it greets the others, and waits until all are ready."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Final

from fed.core.failure import Failure, Kind
from fed.engine.exceptions import init_error
from fed.engine.shell import Shell, log_event
from fed.errors import ConfigError, InitError
from fed.runtime.contract import Outcome
from fed.runtime.placement import amounts

__all__ = ["START_S", "Joining"]

START_S: Final = 60.0
"""How long the proxies may take to start; a Ray worker takes about a second."""


class Joining:
    """How far it has come.

    Attributes:
        listened: Whether the proxies were asked to start.
        connecting: Whether they were asked to greet the others.
        refused: Whether this party and another one will not have one another.

    Args:
        shell: Of the job.
    """

    def __init__(self, shell: Shell) -> None:
        self._shell = shell
        self.listened = False
        self.connecting = False
        self.refused = False

    def join(self) -> None:
        """Start the runtime and the proxies, and return when every party is ready.

        Raises:
            ConfigError: The port is taken, or this party's credentials are wrong.
            InitError: A party refused, failed, or was not ready in time.
        """
        proxies = self._shell.start()
        deadline = self._shell.clock.monotonic() + START_S
        self.listened = True
        awaited_start = "the proxies to start"
        if self._shell.config.ray_proxy_resources:
            # Some node has that much, which leaves that it is in use.
            wanted = amounts(self._shell.config.ray_proxy_resources)
            awaited_start += f" where each finds {wanted} not in use (option ray_proxy_resources)"
        trouble = self._shell.waits.result_of(proxies.started(), deadline, awaited_start)
        if trouble is not None:
            raise ConfigError(trouble)
        self._shell.dialogue.watch(proxies)
        timeout_s = self._shell.config.init_timeout_s
        deadline = self._shell.clock.monotonic() + timeout_s
        self.connecting = True
        joining = proxies.connect(timeout_s)
        connected: list[Outcome] = []
        self._shell.runtime.watch(joining, functools.partial(self._shell.waits.note_outcome, connected))
        if self._shell.config.peers:
            log_event(self._shell.party, "waiting", {"for": list(self._shell.config.peers)})
        # Beyond the budget, which the sender keeps from when it has started, and which then knows what it last heard.
        self._shell.waits.wait_for(lambda: connected or self._join_failed(), timeout_s + START_S)
        with self._shell.lock:
            self._shell.dialogue.greeted = bool(connected)
            self._shell.dialogue.publish()
        self._raise_if_join_failed(connected)
        with self._shell.lock:
            self._shell.carry_out(self._shell.coordinator.ready())
        while True:
            with self._shell.lock:
                awaited = self._shell.life.awaited
            if awaited:
                self._shell.waits.wait_for(
                    lambda known=awaited: (  # type: ignore[misc]
                        self._shell.life.awaited != known or self._shell.life.latched or self._join_failed()
                    ),
                    deadline - self._shell.clock.monotonic(),
                )
            with self._shell.lock:
                still = self._shell.life.awaited
                failed = self._join_failed()
                # Where something else has failed already, some party had begun, so that all were ready.
                if not failed and (not still or self._shell.life.latched):
                    still = ()
                    # From here on a peer's driver that was started anew is another one.
                    self._shell.life.joined()
                    self._shell.joined_at = self._shell.clock.monotonic()
                    self._shell.dialogue.publish()
            if failed:
                self._raise_if_join_failed(connected)
            if not still:
                break
            if self._shell.clock.monotonic() >= deadline:
                reason = "it was reached, but has not said that it is ready; its output says what it waits for"
                raise init_error(dict.fromkeys(still, reason), timeout_s)
            log_event(self._shell.party, "waiting", {"for": list(still)})
        log_event(self._shell.party, "joined", {})

    def _join_failed(self) -> bool:
        return bool(self._shell.dialogue.disagreed or self._shell.life.quitters) or self._init_failure() is not None

    def _init_failure(self) -> Failure | None:
        """A failure that keeps the job from starting. One of a party that was quicker, and had begun, does not."""
        return next((failure for failure in self._shell.coordinator.book.all if failure.kind is Kind.INIT), None)

    def _raise_if_join_failed(self, connected: Sequence[Outcome]) -> None:
        if self._shell.dialogue.disagreed:
            self.refused = True
            raise init_error(self._shell.dialogue.disagreed)
        outcome = connected[0] if connected else None
        problems = outcome.value if outcome is not None and outcome.fault is None else None
        refusals = {problem.peer: problem.reason for problem in problems or () if problem.final}
        if refusals:
            self.refused = True
            raise init_error(refusals)
        failed = self._init_failure()
        if failed is not None:
            reason = f"its own start failed ({failed.type_name}){failed.hearsay}; its output says why"
            if failed.src_party == self._shell.party:
                # What others tell of it.
                reason = failed.detail or failed.message
            raise init_error({failed.src_party: reason})
        if self._shell.life.quitters:
            raise init_error(dict.fromkeys(self._shell.life.quitters, "it left before the job started"))
        if problems:
            # Last: who has told why it leaves is not greeted any more, and that is no reason.
            raise init_error({problem.peer: problem.reason for problem in problems}, self._shell.config.init_timeout_s)
        if problems is None:
            fault = outcome.fault if outcome is not None else None
            raise InitError(f"the sender proxy did not start: {fault.reason if fault else 'no answer'}")
