"""What Ctrl-C does while a job lasts, and how a driver that is outside fed is woken when the job fails.

Laws:

1. Inside a fed call SIGINT raises nothing. It is noted, the wait of the call is woken, and it is delivered once at
   the call's end, by the handler that was there before the job. A second one is delivered at once [E07].
2. Outside a fed call SIGINT is what it would be without the job.
3. `Interrupter.interrupt` raises in the main thread outside fed calls only [E10], and never after `uninstall`. Where it
   finds the thread in a fed call, or its signal does, the end of that call wakes whoever may ask again. It raises each
   error once.
4. Signals do not count: those that come before the handler has run for the first of them are one.
5. A process that was forked during the job is not interrupted for it: there SIGINT is what it was before the job.

Who writes what. Python runs signal handlers in the main thread, between two of its bytecodes, so that everything the
handler and `Inside` change (`depth`, `deferred`, `_runs`, `_settling`, `_raised`) is changed by the main thread alone;
the orders of stores below are chosen so that the handler may come between any two of them. Other threads read these
fields, and every read is of one attribute. What another thread writes is what it sends: `_error`, `_due` and `_sent`;
and `missed`, which it sets before it looks at the depth, where the end of a call sets the depth before it looks.
`_sending` keeps the senders and `uninstall` apart; the handler never takes it, nor any other lock.

A signal that comes after Python has looked for one, and before the system call that it was about to make, does not
interrupt that call (PEP 475 leaves this race open). Ctrl-C has always had it, and is pressed again. What `interrupt`
sends is sent again until it was handled.
"""

from __future__ import annotations

import os
import queue
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Final

__all__ = ["Inside", "Interrupter"]

_SIGINT: Final = frozenset({signal.SIGINT})

AGAIN_S: Final = 0.01
"""After what time a signal that was not handled is sent again; then after twice that, and so on."""

AGAIN_MAX_S: Final = 1.0
"""The longest of these times. The main thread may be in a computation that looks for no signals."""

Handler = Callable[[int, FrameType | None], Any]


class Inside:
    """Marks that the thread of an `Interrupter` is inside a fed call. Re-entrant; in other threads it does nothing.

    A plain object with slots rather than a generator: every fed call passes through it.

    Attributes:
        depth: How many calls the thread is in.
        deferred: A SIGINT waits for the outermost of them to end.
        missed: An error may have been kept from the thread because it is in one.
        thread: Whose calls count; 0, which is no thread's, until the handler is installed.
    """

    __slots__ = ("deferred", "depth", "missed", "previous", "thread", "wake")

    def __init__(self, wake: Callable[[], None]) -> None:
        self.wake: Final = wake
        self.depth = 0
        self.deferred = False
        self.missed = False
        self.thread = 0
        self.previous: Handler = signal.default_int_handler

    # A handler that runs before the store sees the old depth, and if it raises, there is no store, and no `with` to
    # leave. One that runs after it defers. One that insists (see `_handle`) sets the depth back itself, because no
    # `__exit__` follows when it raises between this store and the first instruction of the body.
    def __enter__(self) -> None:
        if threading.get_ident() == self.thread:
            self.depth += 1

    # First the store, then the look: a SIGINT before the store is deferred and seen by the look, one after it is
    # delivered by the handler. The depth is 0 already where an insisting handler has set it back.
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if threading.get_ident() != self.thread:
            return
        if self.depth:
            self.depth -= 1
        if self.depth:
            return
        try:
            if self.deferred:
                # The body's exception is being handled here, so that it becomes the context of what this raises.
                self.deliver()
        finally:
            # Forgotten last, so that the next call's end does it if a handler raises here. Whoever marks it in between
            # finds that this call is over.
            if self.missed:
                self.wake()
                self.missed = False

    def deliver(self) -> None:
        """Hand the deferred SIGINT to the handler that was there before, as if it had come in the caller's caller."""
        # A SIGINT before this store is delivered by the handler, which clears the flag for both. If that raises, we do
        # not get to ours; if it does not, ours is the second of two.
        self.deferred = False
        self.previous(signal.SIGINT, sys._getframe(2))


class Interrupter:
    """Stands in front of the SIGINT handler for the length of one job.

    Only the main thread of the main interpreter gets signals. Where it is not installed (a job in another thread, or
    a process that ignores SIGINT) every method is harmless and does nothing.

    Args:
        wake: Called in signal context, when a SIGINT was deferred: ends the wait of the fed call that the main thread
            may be in. Called too at the end of a fed call during which an error was to be raised, for `interrupt` to
            be called again if it still is. It must take no lock; `queue.SimpleQueue.put` is made for this.

    Attributes:
        inside: A context manager for fed calls.
    """

    __slots__ = (
        "_active",
        "_begun",
        "_due",
        "_error",
        "_handled",
        "_handler",
        "_pid",
        "_raised",
        "_runs",
        "_sending",
        "_sent",
        "_settling",
        "inside",
    )

    def __init__(self, wake: Callable[[], None]) -> None:
        self.inside: Final = Inside(wake)
        # Kept, because every `self._handle` is a new object, and whether ours is installed is a question of identity.
        self._handler: Final[Handler] = self._handle
        # A process that is forked during the job inherits the handler, and no job.
        self._pid: Final = os.getpid()
        # Set once: this serves one job, so that it never stands before a handler that calls it.
        self._begun = False
        self._active = False
        self._raised: BaseException | None = None
        # The error on its way; the thread that it is due to, until that thread handles it; one item for each signal.
        self._error: BaseException | None = None
        self._due: list[int] = []
        self._sent: list[None] = []
        # Ends the thread that sends again. Its `put` may be called in signal context.
        self._handled: queue.SimpleQueue[None] = queue.SimpleQueue()
        # While settling, the handler only counts its runs.
        self._settling = False
        self._runs = 0
        # Re-entrant, for a handler of another signal that ends the job while `uninstall` holds it.
        self._sending = threading.RLock()

    @property
    def interrupted(self) -> bool:
        """Whether a SIGINT waits for the end of this thread's fed call. Waits inside fed calls end early when it does.

        Always False in threads that SIGINT does not concern.
        """
        return self.inside.deferred and threading.get_ident() == self.inside.thread

    @property
    def raised(self) -> BaseException | None:
        """What `interrupt` has raised in the main thread last.

        It tells a KeyboardInterrupt into which a foreign blocking call has turned our error from a Ctrl-C.
        """
        return self._raised

    def forget(self) -> None:
        """Let go of what was raised, and of all the frames that it has come through. Called in the main thread."""
        self._raised = None

    def deliver(self) -> None:
        """Deliver the SIGINT that waits for the end of this thread's fed call, if one does, now.

        For a wait that ended early, when it holds no lock. Returns where the previous handler does.
        """
        if self.interrupted:
            self.inside.deliver()

    def install(self) -> bool:
        """Put our handler in front of the one for SIGINT. Idempotent; after `uninstall` it does nothing.

        Returns:
            Whether it is installed: False outside the main thread, and where SIGINT has no Python handler.
        """
        if self._begun:
            return self._active
        if threading.current_thread() is not threading.main_thread():
            return False
        previous = signal.getsignal(signal.SIGINT)
        # Ignored, the system's default, or set in C: none of them could be called for a SIGINT that we got.
        if not callable(previous):
            return False
        # Both are in place before the handler can run.
        self.inside.previous = previous
        self.inside.thread = threading.get_ident()
        # A SIGINT between the two stores below is raised by the exit, when we are installed in full.
        with self.inside:
            self._active = True
            try:
                signal.signal(signal.SIGINT, self._handler)
            except ValueError:  # This is the main thread of an interpreter that is not the main one.
                self._active = False
                return False
            self._begun = True
        return True

    def uninstall(self) -> None:
        """Restore the previous handler; whatever `interrupt` has sent is void from here on. Idempotent.

        Where the user has put a handler on top, or in another thread than the main one, our handler stays and passes
        everything on to the previous one. A Ctrl-C during the call is delivered at its end.
        """
        if threading.get_ident() != self.inside.thread:
            with self._sending:
                self._void()
            return
        with self.inside:
            # In this order: what comes between the two is deferred by the handler as usual.
            self._runs = 0
            recalled = 0
            self._settling = True
            try:
                # Only a moment: senders hold it for some instructions, and block in none of them. When we have it,
                # a signal was sent in full or never will be.
                with self._sending:
                    self._void()
                recalled = self._recall()
                # The handler runs for what was delivered, and not yet handled, before another one is put in place.
                if signal.getsignal(signal.SIGINT) is self._handler:
                    signal.signal(signal.SIGINT, self.inside.previous)
            finally:
                self._settling = False
                if self._runs > recalled:
                    self.inside.deferred = True

    def interrupt(self, error: BaseException) -> bool:
        """Raise an error in the main thread now, out of whatever it does, unless that is a fed call.

        Safe in any thread; in the main one it raises right here. Out of Ray's blocking calls only KeyboardInterrupt
        gets out, and as a plain one: derive the error's class from it, and ask `raised`.

        Args:
            error: What the main thread is to raise.

        Returns:
            Whether the main thread is being interrupted. It may enter a fed call in the meantime, which may raise
            what is due instead of `error`: `raised` tells. False if it is in a fed call, if SIGINT has another handler
            than ours, if an earlier error is still on its way, or if this one was raised before.
        """
        if threading.get_ident() == self.inside.thread:
            if self._raised is error or not self._reachable():
                return False
            self._raised = error
            raise error
        with self._sending:
            # In the order opposite to the handler's, which raises before it lets the next one be sent.
            busy = self._error is not None
            if self._raised is error or not self._reachable() or busy:
                return False
            self._handled = queue.SimpleQueue()
            self._error = error
            self._due.append(self.inside.thread)
            self._send()
        again = threading.Thread(target=self._send_again, args=(self._handled,), name="fed-interrupt", daemon=True)
        try:
            again.start()
        except RuntimeError:  # The interpreter shuts down, or has no threads left: once has to do.
            pass
        return True

    def _send(self) -> None:
        # The handler tells our signal from a Ctrl-C that came just before it by whether `_sent` is empty, and empties
        # `_due`. So it must not run between our look at `_due`, the signal, and the note of it. It does not: `extend`
        # makes `map` take the thread, send the signal, and hand over what that returns, within one call into C that
        # never lets go of the interpreter lock. `map` is made in a statement of its own, because to allocate it may
        # run the garbage collector.
        send = map(signal.pthread_kill, self._due, (signal.SIGINT,))
        self._sent.extend(send)

    def _send_again(self, handled: queue.SimpleQueue[None]) -> None:
        pause_s = AGAIN_S
        while True:
            try:
                return handled.get(timeout=pause_s)
            except queue.Empty:
                pause_s = min(2 * pause_s, AGAIN_MAX_S)
            with self._sending:
                # Another handler than ours would take it for a Ctrl-C.
                if signal.getsignal(signal.SIGINT) is not self._handler:
                    return None
                self._send()

    def _void(self) -> None:
        self._begun = True
        self._active = False
        self.inside.missed = False
        self._due.clear()
        self._handled.put(None)

    def _reachable(self) -> bool:
        # The main thread may enter a fed call right after this, for which the handler looks again; or the user may put
        # a handler there, which then takes ours for a Ctrl-C: nothing in Python can send a signal to one handler only.
        if not self._active or signal.getsignal(signal.SIGINT) is not self._handler:
            return False
        self.inside.missed = True
        return not self.inside.depth

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        """Signal context: the main thread, between any two bytecodes of anything, with any lock held."""
        if os.getpid() != self._pid:
            signal.signal(signum, self.inside.previous)
            self.inside.previous(signum, frame)
            return
        if self._settling:
            self._runs += 1
            return
        inside = self.inside
        if self._sent:
            # This run may be for a Ctrl-C, with ours right behind it.
            self._runs = 1
            recalled = 0
            before = self._raised
            error: BaseException | None = None
            self._settling = True
            try:
                if self._active and not inside.depth:
                    # It was set before the signal and stays until the recall, which lets the next one be sent: so that
                    # it is not this one, it counts as raised from here on.
                    self._raised = error = self._error
                else:
                    inside.missed = True
                self._due.clear()
                self._handled.put(None)
                recalled = self._recall()
            except BaseException:
                # Of the handler of another signal.
                self._raised = before
                inside.missed = True
                raise
            finally:
                self._settling = False
            if error is not None and self._active:
                inside.deferred = False
                raise error
            # Not raised: the main thread is in a fed call, or the job has ended, perhaps meanwhile.
            self._raised = before
            if self._runs <= recalled:
                return
        if self._active and inside.depth and not inside.deferred:
            inside.deferred = True
            inside.wake()
            return
        # Delivered here and now, and a deferred one with it.
        inside.deferred = False
        try:
            inside.previous(signum, frame)
        except BaseException:
            # We may be in `__enter__`, with no `__exit__` to follow. Where one follows all the same, it finds 0.
            inside.depth = 0
            raise

    def _recall(self) -> int:
        """Make the signals that were sent arrive here or nowhere.

        Called while settling, when nothing is due any more. What was sent was delivered to this thread before SIGINT
        is blocked, and then blocking it runs the handler, if that has not run yet [1]; or it waits behind the block.
        The system hands out what is for this thread, as ours is, before what is for the process [2], so that to take
        one signal takes ours if it is there. If a Ctrl-C is taken instead, ours is one of the runs, and that run
        stands for the Ctrl-C: all that matters is how many there were.

        Returns:
            How many of the counted runs were not for a Ctrl-C. To subtract it here could undo a count of the handler's.

        [1] CPython, Modules/signalmodule.c: "if signals was unblocked, signals handlers have been called".
        [2] Linux, kernel/signal.c, `dequeue_signal`. Of each there is one at most.
        """
        if not self._sent:
            return 0
        # Known before anything is blocked, so that the handler of another signal may raise anywhere below.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        try:
            signal.pthread_sigmask(signal.SIG_BLOCK, _SIGINT)
            taken = signal.sigtimedwait(_SIGINT, 0)
            # Behind a block of the user's, all of ours are one. Else they are one run, and a second one if one was
            # sent again just when that began. That is assumed, since it cannot be known: rather is a Ctrl-C of the
            # same instant lost than ours taken for one.
            ours = 1 if signal.SIGINT in mask else min(len(self._sent), 2)
            return ours - (taken is not None)
        finally:
            self._sent.clear()
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            # Last: it lets the next one be sent, which would be counted here.
            self._error = None
