"""Ctrl-C and the waking of the driver, with real signals: between any two bytecodes, and in any blocking call.

What must not end the test process runs as a program of its own: a function of this module, in a new interpreter.
"""

from __future__ import annotations

import _thread
import contextlib
import inspect
import json
import os
import queue
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, cast

import pytest

from fed.engine import signals
from fed.engine.signals import Handler, Inside, Interrupter

ROOT = Path(__file__).parents[3]
SEED = 4711


class Aborted(KeyboardInterrupt):
    """Stands for the error of a job that failed."""


class Recorder:
    """A SIGINT handler that raises nothing."""

    def __init__(self) -> None:
        self.frames: list[FrameType | None] = []

    def __call__(self, signum: int, frame: FrameType | None) -> None:
        assert signum == signal.SIGINT
        self.frames.append(frame)


class Wake:
    """Counts its calls."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> None:
        self.calls += 1


@pytest.fixture(autouse=True)
def _sigint() -> Iterator[None]:
    # A test run in the background of a shell ignores SIGINT.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    after = signal.signal(signal.SIGINT, before)
    assert after is signal.default_int_handler
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


@pytest.fixture
def wake() -> Wake:
    return Wake()


@pytest.fixture
def interrupter(wake: Wake) -> Iterator[Interrupter]:
    interrupter = Interrupter(wake)
    assert interrupter.install()
    yield interrupter
    interrupter.uninstall()


def ctrl_c() -> None:
    signal.raise_signal(signal.SIGINT)


def handler() -> object:
    """The handler of SIGINT. What it is compared with keeps its type."""
    return signal.getsignal(signal.SIGINT)


def elsewhere(call: Callable[[], Any]) -> Any:
    """What a call returns in another thread."""
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(call()))
    thread.start()
    thread.join()
    return results[0]


def block() -> None:
    """Let what other threads send to this one wait."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})


def unblock() -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


# Where it is installed


def test_it_stands_before_the_previous_handler_and_leaves(wake: Wake) -> None:
    interrupter = Interrupter(wake)
    assert interrupter.install()
    assert interrupter.install()
    assert handler() is not signal.default_int_handler
    interrupter.uninstall()
    interrupter.uninstall()
    assert handler() is signal.default_int_handler
    assert not interrupter.install(), "it serves one job"
    assert handler() is signal.default_int_handler


def assert_it_does_nothing(interrupter: Interrupter) -> None:
    before = handler()
    assert not interrupter.install()
    with interrupter.inside:
        assert not interrupter.interrupted
        interrupter.deliver()
    assert not interrupter.interrupt(Aborted())
    assert interrupter.raised is None
    interrupter.uninstall()
    assert handler() is before


def test_it_does_nothing_in_another_thread(wake: Wake) -> None:
    elsewhere(lambda: assert_it_does_nothing(Interrupter(wake)))
    assert not wake.calls


@pytest.mark.parametrize("system", [signal.SIG_IGN, signal.SIG_DFL])
def test_it_does_nothing_where_python_does_not_handle_sigint(system: signal.Handlers, wake: Wake) -> None:
    signal.signal(signal.SIGINT, system)
    try:
        assert_it_does_nothing(Interrupter(wake))
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def test_it_does_nothing_where_the_handler_is_in_c(wake: Wake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signal, "getsignal", lambda signum: None)
    assert_it_does_nothing(Interrupter(wake))


def test_it_does_nothing_in_an_interpreter_that_may_not(wake: Wake, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise ValueError("signal only works in main thread of the main interpreter")

    with monkeypatch.context() as patch:
        patch.setattr(signal, "signal", refuse)
        assert_it_does_nothing(Interrupter(wake))


# Ctrl-C


def test_outside_it_is_what_it_was(interrupter: Interrupter, wake: Wake) -> None:
    with pytest.raises(KeyboardInterrupt):
        ctrl_c()
    assert not interrupter.interrupted
    assert not wake.calls


def test_inside_it_waits_for_the_end(interrupter: Interrupter, wake: Wake) -> None:
    seen: list[bool] = []

    def call() -> None:
        with interrupter.inside:
            with interrupter.inside:
                seen.append(interrupter.interrupted)
                ctrl_c()
                seen.append(interrupter.interrupted)
            seen.append(interrupter.interrupted)

    with pytest.raises(KeyboardInterrupt):
        call()
    assert seen == [False, True, True]
    assert not interrupter.interrupted
    assert wake.calls == 1
    with interrupter.inside:
        pass
    assert wake.calls == 1


def test_other_threads_are_not_interrupted(interrupter: Interrupter) -> None:
    seen: list[bool] = []

    def other_call() -> None:
        with interrupter.inside:
            interrupter.deliver()
            seen.append(interrupter.interrupted)

    def call() -> None:
        with interrupter.inside:
            ctrl_c()
            elsewhere(other_call)
            seen.append(interrupter.interrupted)

    with pytest.raises(KeyboardInterrupt):
        call()
    assert seen == [False, True]


def test_the_exception_of_the_body_is_its_context(interrupter: Interrupter) -> None:
    error = ValueError("the body's")

    def call() -> None:
        with interrupter.inside:
            ctrl_c()
            raise error

    with pytest.raises(KeyboardInterrupt) as raised:
        call()
    assert raised.value.__context__ is error


def test_a_second_one_is_delivered_at_once(interrupter: Interrupter, wake: Wake) -> None:
    with interrupter.inside, interrupter.inside:
        ctrl_c()
        with pytest.raises(KeyboardInterrupt):
            ctrl_c()
        assert not interrupter.interrupted
    assert wake.calls == 1
    # The next call is protected as the first one was.
    with pytest.raises(KeyboardInterrupt), interrupter.inside:
        ctrl_c()
    assert wake.calls == 2


def test_a_wait_that_ended_early_delivers(interrupter: Interrupter) -> None:
    with interrupter.inside:
        interrupter.deliver()
        for _ in range(2):
            ctrl_c()
            with pytest.raises(KeyboardInterrupt):
                interrupter.deliver()
        interrupter.deliver()
        assert not interrupter.interrupted


def test_a_handler_of_the_user_is_called_once_for_each(wake: Wake) -> None:
    recorder = Recorder()
    signal.signal(signal.SIGINT, recorder)
    interrupter = Interrupter(wake)
    try:
        assert interrupter.install()
        ctrl_c()
        frame = inspect.currentframe()
        assert frame is not None
        with interrupter.inside:
            ctrl_c()
            assert len(recorder.frames) == 1
        with interrupter.inside:
            ctrl_c()
            interrupter.deliver()
            assert len(recorder.frames) == 3
        codes = [interrupted.f_code for interrupted in recorder.frames if interrupted is not None]
        assert codes == [ctrl_c.__code__, frame.f_code, frame.f_code]
        assert wake.calls == 2
        interrupter.uninstall()
        assert handler() is recorder
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.mark.parametrize("inside", [False, True])
def test_a_handler_that_the_user_put_on_top_stays(inside: bool, wake: Wake) -> None:
    below, interrupter = Recorder(), Interrupter(wake)
    signal.signal(signal.SIGINT, below)
    try:
        interrupter.install()
        ours = cast(Handler, signal.getsignal(signal.SIGINT))
        signal.signal(signal.SIGINT, lambda signum, frame: ours(signum, frame))
        on_top = handler()
        with interrupter.inside:
            ctrl_c()
            assert interrupter.interrupted
        assert len(below.frames) == 1
        assert not elsewhere(lambda: interrupter.interrupt(Aborted()))
        assert not interrupter.interrupt(Aborted())
        interrupter.uninstall()
        assert handler() is on_top
        if inside:
            with interrupter.inside:
                ctrl_c()
                assert len(below.frames) == 2
        else:
            ctrl_c()
        assert len(below.frames) == 2
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


# Waking the driver


def test_the_main_thread_raises_the_error(interrupter: Interrupter, wake: Wake) -> None:
    for error in Aborted("bob failed"), Aborted("carol failed"):
        assert raised_by(lambda error=error: elsewhere(lambda: interrupter.interrupt(error))) == [error]  # type: ignore[misc]
        assert interrupter.raised is error
    assert not wake.calls


def test_in_the_main_thread_it_raises_at_once(interrupter: Interrupter) -> None:
    with interrupter.inside:
        assert not interrupter.interrupt(Aborted())
    with pytest.raises(Aborted):
        interrupter.interrupt(Aborted())
    assert isinstance(interrupter.raised, Aborted)
    interrupter.forget()
    assert interrupter.raised is None


def test_a_fed_call_is_left_alone_until_its_end(interrupter: Interrupter, wake: Wake) -> None:
    with interrupter.inside:
        with interrupter.inside:
            assert not elsewhere(lambda: interrupter.interrupt(Aborted()))
        calls = [wake.calls]
    calls.append(wake.calls)
    with interrupter.inside:
        pass
    calls.append(wake.calls)
    assert calls == [0, 1, 1], "somebody may want to try again, once"
    assert interrupter.raised is None


def test_a_ctrl_c_in_the_same_fed_call_keeps_nothing_from_it(interrupter: Interrupter, wake: Wake) -> None:
    def call() -> None:
        with interrupter.inside:
            ctrl_c()
            assert wake.calls == 1
            assert not elsewhere(lambda: interrupter.interrupt(Aborted()))

    with pytest.raises(KeyboardInterrupt):
        call()
    assert wake.calls == 2


def test_a_fed_call_that_began_in_the_meantime_is_left_alone(interrupter: Interrupter, wake: Wake) -> None:
    block()
    assert elsewhere(lambda: interrupter.interrupt(Aborted()))
    assert not elsewhere(lambda: interrupter.interrupt(Aborted())), "one at a time"
    with interrupter.inside:
        pass
    # What comes in the second one is told at the end of the second one.
    first = wake.calls
    with interrupter.inside:
        unblock()
        assert not interrupter.interrupted
        assert wake.calls == first
    assert wake.calls == first + 1
    assert interrupter.raised is None
    error = Aborted()
    twice = [raised_by(lambda: elsewhere(lambda: interrupter.interrupt(error))) for _ in range(2)]
    assert twice == [[error], []]


def test_a_ctrl_c_that_comes_before_the_error_is_apart_from_it(
    interrupter: Interrupter, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The thread that interrupts is held after it has set out to, and before it has sent its signal.
    setting_out, caught = threading.Event(), threading.Event()
    pthread_kill = signal.pthread_kill

    def late(thread: int, signum: int) -> None:
        setting_out.set()
        caught.wait()
        pthread_kill(thread, signum)

    monkeypatch.setattr(signal, "pthread_kill", late)
    thread = threading.Thread(target=interrupter.interrupt, args=(Aborted(),))
    thread.start()
    setting_out.wait()
    with pytest.raises(KeyboardInterrupt) as raised:
        ctrl_c()
    assert not isinstance(raised.value, Aborted)

    def go_on() -> None:
        try:
            caught.set()
        finally:
            thread.join()

    with pytest.raises(Aborted):
        go_on()


@pytest.mark.parametrize("lost", [1, 3])
def test_a_signal_that_interrupts_nothing_is_sent_again(
    lost: int, interrupter: Interrupter, monkeypatch: pytest.MonkeyPatch
) -> None:
    pthread_kill, sent = signal.pthread_kill, 0

    def lose_the_first(thread: int, signum: int) -> None:
        nonlocal sent
        sent += 1
        if sent > lost:
            pthread_kill(thread, signum)

    monkeypatch.setattr(signal, "pthread_kill", lose_the_first)
    forever: queue.SimpleQueue[None] = queue.SimpleQueue()

    def wait_for_nothing() -> None:
        assert elsewhere(lambda: interrupter.interrupt(Aborted()))
        forever.get()

    with pytest.raises(Aborted):
        wait_for_nothing()
    assert sent == lost + 1


def test_nothing_is_sent_again_to_a_handler_of_the_user(
    interrupter: Interrupter, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The signal is lost, and the user's handler is there before it is time to send it again.
    sending, replaced = threading.Event(), threading.Event()
    sent: list[int] = []

    def lose(thread: int, signum: int) -> None:
        sent.append(signum)
        sending.set()
        replaced.wait()

    monkeypatch.setattr(signal, "pthread_kill", lose)
    thread = threading.Thread(target=interrupter.interrupt, args=(Aborted(),))
    thread.start()
    sending.wait()
    ours = signal.signal(signal.SIGINT, Recorder())
    replaced.set()
    thread.join()
    for again in threading.enumerate():
        if again.name == "fed-interrupt":
            again.join()
    signal.signal(signal.SIGINT, ours)
    assert sent == [signal.SIGINT]


@pytest.mark.parametrize("inside", [False, True])
def test_a_ctrl_c_handled_while_the_error_is_on_its_way_is_one_with_it(interrupter: Interrupter, inside: bool) -> None:
    block()
    assert elsewhere(lambda: interrupter.interrupt(Aborted()))

    def call() -> None:
        with interrupter.inside:
            _thread.interrupt_main()

    # Inside, the error is dropped, but not the Ctrl-C.
    raised = raised_by(call if inside else _thread.interrupt_main)
    assert [type(error) for error in raised] == [KeyboardInterrupt if inside else Aborted]
    unblock()
    assert (interrupter.raised is None) == inside


# Between any two bytecodes


def at_opcodes(codes: set[CodeType], region: Callable[[], object], actions: dict[int, Callable[[], object]]) -> int:
    """Run a region, with actions before the numbered bytecodes of the code objects. Returns how many were executed."""
    executed = 0

    def trace(frame: FrameType, event: str, arg: object) -> Any:
        nonlocal executed
        if frame.f_code not in codes:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            executed += 1
            if executed - 1 in actions:
                actions[executed - 1]()
        return trace

    before = sys.gettrace()
    # Python 3.12 looks for such a frame when tracing begins, and not later.
    sys._getframe().f_trace_opcodes = True
    sys.settrace(trace)
    try:
        region()
    finally:
        sys.settrace(before)
    return executed


def codes_of(*owners: type) -> set[CodeType]:
    return {function.__code__ for owner in owners for function in vars(owner).values() if inspect.isfunction(function)}


def raised_by(region: Callable[[], object]) -> list[BaseException]:
    try:
        region()
    except KeyboardInterrupt as error:
        return [error]
    return []


@pytest.mark.parametrize("body_raises", [False, True])
@pytest.mark.parametrize("handler_raises", [True, False])
def test_every_ctrl_c_is_delivered_wherever_it_comes(body_raises: bool, handler_raises: bool, wake: Wake) -> None:
    delivered = 0

    def previous(signum: int, frame: FrameType | None) -> None:
        nonlocal delivered
        delivered += 1
        if handler_raises:
            raise KeyboardInterrupt

    signal.signal(signal.SIGINT, previous)
    interrupter = Interrupter(wake)
    interrupter.install()

    def region() -> None:
        with interrupter.inside:
            with interrupter.inside:
                pass
            if body_raises:
                raise KeyboardInterrupt

    codes = codes_of(Inside)
    if not body_raises:
        # Python itself forgets to stop handling an exception if another one comes out of what stops it. Signals do
        # not come there; the tracing does.
        codes.add(region.__code__)
    never = 1_000_000
    length = 0

    def sweep(first: int, second: int) -> int:
        nonlocal delivered
        delivered = 0
        fired: list[None] = []

        def press() -> None:
            fired.append(None)
            ctrl_c()

        raised_by(lambda: at_opcodes(codes, region, {first: press, second: press}))
        assert not interrupter.interrupted
        assert interrupter.inside.depth == 0
        assert min(len(fired), 1) <= delivered <= len(fired)
        return len(fired)

    try:
        raised_by(lambda: at_opcodes(codes, region, {}))
        # As many as there can be: the sweep ends where nothing is fired any more.
        while sweep(length, never):
            assert delivered == 1
            length += 1
        assert length > 50
        for first in range(length):
            second = first + 1
            while sweep(first, second) == 2:
                second += 1
    finally:
        interrupter.uninstall()
        signal.signal(signal.SIGINT, signal.default_int_handler)


def test_an_error_between_a_deferred_ctrl_c_and_its_delivery_is_one_with_it(wake: Wake) -> None:
    kinds: list[type] = []

    def sweep(n: int) -> bool:
        interrupter, tried = Interrupter(wake), False
        interrupter.install()

        def region() -> None:
            with interrupter.inside:
                ctrl_c()

        def interrupt() -> None:
            nonlocal tried
            tried = True
            elsewhere(lambda: interrupter.interrupt(Aborted()))

        raised = raised_by(lambda: at_opcodes(codes_of(Inside), region, {n: interrupt}))
        assert len(raised) == 1
        assert not interrupter.interrupted
        assert interrupter.inside.depth == 0
        kinds.append(type(raised[0]))
        interrupter.uninstall()
        return tried

    while sweep(len(kinds)):
        pass
    # Before the call, in the call, at its end when it is over already, and nothing any more.
    changes = [kind for kind, before in zip(kinds, [None, *kinds], strict=False) if kind is not before]
    assert changes == [Aborted, KeyboardInterrupt, Aborted, KeyboardInterrupt]


@pytest.mark.parametrize("body_raises", [False, True])
def test_an_error_at_any_moment_of_a_fed_call_is_raised_once_when_it_is_over(body_raises: bool) -> None:
    error = Aborted()

    def sweep(n: int) -> bool:
        interrupter, tried = Interrupter(lambda: try_it()), False

        def try_it() -> None:
            nonlocal tried
            tried = True
            elsewhere(lambda: interrupter.interrupt(error))

        def region() -> None:
            try:
                with interrupter.inside:
                    with interrupter.inside:
                        pass
                    if body_raises:
                        raise OSError
            except OSError:
                pass

        interrupter.install()
        raised = raised_by(lambda: at_opcodes(codes_of(Inside), region, {n: try_it}))
        # Nothing is left of it for the next call.
        raised += raised_by(region)
        assert raised == [error] * tried, n
        assert interrupter.inside.depth == 0
        interrupter.uninstall()
        return tried

    n = 0
    while sweep(n):
        n += 1
    assert n > 50


def test_a_ctrl_c_at_any_moment_of_the_end_of_a_fed_call_keeps_nothing_from_it() -> None:
    keeps: list[bool] = []

    def sweep(n: int) -> bool:
        # False in those calls that are not for the Ctrl-C.
        interrupter, calls = Interrupter(lambda: calls.append(interrupter.interrupted)), list[bool]()
        kept = pressed = False
        interrupter.install()

        def press() -> None:
            nonlocal pressed
            pressed = True
            ctrl_c()

        def call() -> None:
            nonlocal kept
            with interrupter.inside:
                kept = not elsewhere(lambda: interrupter.interrupt(Aborted()))

        raised = raised_by(lambda: at_opcodes(codes_of(Inside), call, {n: press}))
        with interrupter.inside:
            pass
        interrupter.uninstall()
        assert len(raised) == pressed, n
        # It may come before the call has begun.
        assert kept == (False in calls), n
        keeps.append(kept)
        return pressed

    while sweep(len(keeps)):
        pass
    assert keeps == sorted(keeps)
    assert sum(keeps) > 30


def test_a_fed_call_that_ends_while_an_error_is_kept_from_it_hears_of_it(wake: Wake) -> None:
    def sweep(n: int) -> bool:
        interrupter, tried = Interrupter(wake), False
        reached, left = threading.Event(), threading.Event()

        def pause() -> None:
            nonlocal tried
            tried = True
            reached.set()
            left.wait()

        def interrupt() -> None:
            at_opcodes({Interrupter._reachable.__code__}, lambda: interrupter.interrupt(Aborted()), {n: pause})
            reached.set()

        thread = threading.Thread(target=interrupt)

        def region() -> None:
            with interrupter.inside:
                thread.start()
                reached.wait()
            left.set()
            thread.join()

        wake.calls = 0
        interrupter.install()
        raised = raised_by(region)
        raised += raised_by(thread.join)
        assert len(raised) + wake.calls > 0, n
        interrupter.uninstall()
        return tried

    n = 0
    while sweep(n):
        n += 1
    assert n > 10


def test_a_ctrl_c_while_it_is_installed_or_uninstalled_is_delivered_once(wake: Wake) -> None:
    recorder = Recorder()
    codes = codes_of(Inside, Interrupter)

    def life() -> None:
        interrupter = Interrupter(wake)
        assert interrupter.install()
        interrupter.uninstall()

    signal.signal(signal.SIGINT, recorder)
    try:
        length = at_opcodes(codes, life, {})
        assert length > 100
        for n in range(length):
            recorder.frames.clear()
            at_opcodes(codes, life, {n: ctrl_c})
            assert len(recorder.frames) == 1, n
            assert handler() is recorder
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def test_installing_and_uninstalling_may_be_interrupted(wake: Wake) -> None:
    codes = codes_of(Inside, Interrupter)

    def sweep(n: int) -> bool:
        interrupter, pressed = Interrupter(wake), False

        def life() -> None:
            interrupter.install()
            interrupter.uninstall()

        def press() -> None:
            nonlocal pressed
            pressed = True
            ctrl_c()

        raised = raised_by(lambda: at_opcodes(codes, life, {n: press}))
        # As the caller does, whatever was raised.
        raised += raised_by(interrupter.uninstall)
        assert len(raised) == pressed, n
        assert handler() is signal.default_int_handler
        return pressed

    n = 0
    while sweep(n):
        n += 1
    assert n > 50


@pytest.mark.parametrize("where", ["waiting", "delivered"])
def test_an_error_that_is_on_its_way_when_it_is_uninstalled_never_arrives(where: str, wake: Wake) -> None:
    interrupter = Interrupter(wake)
    interrupter.install()
    block()
    assert elsewhere(lambda: interrupter.interrupt(Aborted()))
    with interrupter.inside:
        if where == "delivered":
            unblock()
        interrupter.uninstall()
        unblock()
    unblock()
    assert interrupter.raised is None
    assert not interrupter.interrupted


def test_uninstalled_in_another_thread_nothing_is_raised_either(wake: Wake) -> None:
    interrupter = Interrupter(wake)
    interrupter.install()
    block()
    assert elsewhere(lambda: interrupter.interrupt(Aborted()))
    elsewhere(interrupter.uninstall)
    unblock()
    assert not elsewhere(lambda: interrupter.interrupt(Aborted()))
    with pytest.raises(KeyboardInterrupt), interrupter.inside:
        ctrl_c()
    interrupter.uninstall()
    assert handler() is signal.default_int_handler


def test_a_ctrl_c_is_kept_when_the_error_on_its_way_is_taken_back(wake: Wake) -> None:
    codes = codes_of(Inside, Interrupter)

    def sweep(n: int) -> bool:
        interrupter, pressed = Interrupter(wake), False

        def press() -> None:
            nonlocal pressed
            pressed = True
            _thread.interrupt_main()

        interrupter.install()
        # What was sent waits; a Ctrl-C that another thread got trips the handler without it.
        block()
        assert elsewhere(lambda: interrupter.interrupt(Aborted()))
        raised = raised_by(lambda: at_opcodes(codes, interrupter.uninstall, {n: press}))
        raised += raised_by(interrupter.uninstall)
        raised += raised_by(unblock)
        assert len(raised) == pressed, n
        # Before the uninstallation begins, the Ctrl-C is one with the error.
        assert interrupter.raised is next((error for error in raised if isinstance(error, Aborted)), None)
        assert handler() is signal.default_int_handler
        return pressed

    n = 0
    while sweep(n):
        n += 1
    assert n > 50


def test_an_error_sent_at_any_moment_of_the_uninstallation_is_raised_in_it_or_never(wake: Wake) -> None:
    codes = codes_of(Inside, Interrupter)

    def sweep(n: int) -> bool:
        interrupter, tried = Interrupter(wake), False

        def interrupt() -> None:
            # Where this thread holds the lock, the other one would wait, and we for it.
            if interrupter._sending.acquire(blocking=False):
                interrupter._sending.release()
                interrupter.interrupt(Aborted())

        def try_it() -> None:
            nonlocal tried
            tried = True
            elsewhere(lambda: interrupt())

        interrupter.install()
        raised = raised_by(lambda: at_opcodes(codes, interrupter.uninstall, {n: try_it}))
        interrupter.uninstall()
        unblock()
        assert len(raised) <= 1
        assert interrupter.raised is next(iter(raised), None)
        assert all(isinstance(error, Aborted) for error in raised)
        return tried

    n = 0
    while sweep(n):
        n += 1
    assert n > 50


def test_a_job_that_ends_at_any_moment_of_the_arrival_has_raised_what_it_says_it_has(
    wake: Wake, monkeypatch: pytest.MonkeyPatch
) -> None:
    # One arrival, however slow we are.
    monkeypatch.setattr(signals, "AGAIN_S", 60)
    outcomes: list[int] = []

    def sweep(n: int) -> bool:
        interrupter, tried = Interrupter(wake), False

        def end() -> None:
            nonlocal tried
            tried = True
            elsewhere(interrupter.uninstall)

        interrupter.install()
        block()
        assert elsewhere(lambda: interrupter.interrupt(Aborted()))
        raised = raised_by(lambda: at_opcodes(codes_of(Interrupter), unblock, {n: end}))
        unblock()
        assert interrupter.raised is next(iter(raised), None), n
        assert [type(error) for error in raised] in ([], [Aborted]), n
        outcomes.append(len(raised))
        interrupter.uninstall()
        return tried

    while sweep(len(outcomes)):
        pass
    # First the end is in time, then it is too late: when the handler is about to raise, and not before.
    assert outcomes == sorted(outcomes)
    assert 1 < sum(outcomes) < 20 < len(outcomes) - sum(outcomes), outcomes


def test_an_error_that_another_signals_handler_comes_before_is_not_said_to_be_raised(
    interrupter: Interrupter, wake: Wake
) -> None:
    class Ended(KeyboardInterrupt):
        pass

    def end(signum: int, frame: FrameType | None) -> None:
        raise Ended

    before = signal.signal(signal.SIGUSR1, end)
    block()
    assert elsewhere(lambda: interrupter.interrupt(Aborted()))
    raised = raised_by(
        lambda: at_opcodes({Interrupter._recall.__code__}, unblock, {0: lambda: signal.raise_signal(signal.SIGUSR1)})
    )
    signal.signal(signal.SIGUSR1, before)
    assert [type(error) for error in raised] == [Ended]
    assert interrupter.raised is None
    calls = [wake.calls]
    with interrupter.inside:
        pass
    calls.append(wake.calls)
    assert calls == [0, 1], "it may be asked for again"


# Programs of their own


def run(program: Callable[..., None], *arguments: object) -> Any:
    """Run a function of this module in a new interpreter. Returns what it printed."""
    code = f"from {__name__} import {program.__name__} as program\nprogram{arguments!r}"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    assert not done.stderr, done.stderr
    return json.loads(done.stdout)


def sleep(announce: Callable[[], None]) -> None:
    announce()
    time.sleep(1000)


def compute(announce: Callable[[], None]) -> None:
    announce()
    while True:
        pass


def wait(announce: Callable[[], None]) -> None:
    condition = threading.Condition()
    with condition:
        announce()
        condition.wait()


def receive(announce: Callable[[], None]) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        announce()
        ours.recv(1)


def get(announce: Callable[[], None]) -> None:
    announce()
    queue.SimpleQueue[None]().get()


def woken(name: str, holds_the_interpreter: bool) -> None:
    """Interrupt a main thread that is blocked, print what became of it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    interrupter = Interrupter(lambda: None)
    interrupter.install()
    about_to, outcome = threading.Event(), list[bool]()

    def interrupt() -> None:
        about_to.wait()
        outcome.append(interrupter.interrupt(Aborted("bob failed")))

    thread = threading.Thread(target=interrupt)
    thread.start()
    if not holds_the_interpreter:
        # The other thread gets the interpreter when the main one blocks, and not before.
        sys.setswitchinterval(1000)
    error: BaseException | None = None
    try:
        globals()[name](about_to.set)
    except Aborted as aborted:
        error = aborted
    thread.join()
    interrupter.uninstall()
    print(json.dumps([outcome, str(error), interrupter.raised is not None]))


@pytest.mark.parametrize("blocked", [sleep, compute, wait, receive, get])
def test_a_blocked_driver_is_woken(blocked: Callable[[Callable[[], None]], None]) -> None:
    assert run(woken, blocked.__name__, blocked is compute) == [[True], "bob failed", True]


def forked() -> None:
    """Raise SIGINT in children that were forked outside and inside of a fed call, print what became of them."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    interrupter = Interrupter(lambda: None)
    interrupter.install()
    codes = []
    for within in (False, True):
        with interrupter.inside if within else contextlib.nullcontext():
            pid = os.fork()
            if pid == 0:
                code = 1
                try:
                    signal.raise_signal(signal.SIGINT)
                except KeyboardInterrupt:
                    code = 7 if signal.getsignal(signal.SIGINT) is signal.default_int_handler else 2
                finally:
                    os._exit(code)
            codes.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    interrupter.uninstall()
    print(json.dumps(codes))


def test_a_forked_child_has_the_handler_of_before_the_job() -> None:
    assert run(forked) == [7, 7]


def spin(instructions: int) -> None:
    for _ in range(instructions):
        pass


def paced(seed: int, signals: int) -> None:
    """One Ctrl-C after another, at random moments, into fed calls that lock, wait and notify."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    condition, lock = threading.Condition(), threading.Lock()
    errands: queue.SimpleQueue[int | None] = queue.SimpleQueue()
    again: queue.SimpleQueue[bool] = queue.SimpleQueue()
    interrupter = Interrupter(lambda: errands.put(-1))
    interrupter.install()
    # An errand is answered by its number; -1 only wakes.
    answered = 0

    def answer() -> None:
        nonlocal answered
        while (errand := errands.get()) is not None:
            with condition:
                answered = max(answered, errand)
                condition.notify_all()

    def press() -> None:
        choose = random.Random(seed)
        main = threading.main_thread().ident
        assert main is not None
        while again.get():
            spin(choose.choice([0, 10, 100, 1000, 5000]))
            if choose.random() < 0.5:
                signal.pthread_kill(main, signal.SIGINT)
            else:
                os.kill(os.getpid(), signal.SIGINT)

    threads = [threading.Thread(target=target) for target in (answer, press)]
    for thread in threads:
        thread.start()
    choose = random.Random(seed + 1)
    raised = deferred = calls = acknowledged = 0

    def answered_or_interrupted() -> bool:
        return answered >= calls or interrupter.interrupted

    again.put(True)
    while True:
        try:
            while raised < signals:
                with interrupter.inside:
                    calls += 1
                    # The next signal comes when the last one was caught, and this is in the `try` again.
                    if acknowledged < raised:
                        acknowledged = raised
                        again.put(True)
                    if choose.random() < 0.5:
                        errands.put(calls)
                        with condition:
                            condition.wait_for(answered_or_interrupted)
                    with lock, condition:
                        spin(choose.choice([0, 10, 100]))
                        condition.notify_all()
                    deferred += interrupter.interrupted
            break
        except KeyboardInterrupt:
            raised += 1
    with interrupter.inside:
        assert not interrupter.interrupted
    assert interrupter.inside.depth == 0
    assert lock.acquire(blocking=False)

    def lock_it() -> bool:
        with condition:
            return True

    assert elsewhere(lock_it)
    again.put(False)
    errands.put(None)
    interrupter.uninstall()
    print(json.dumps({"raised": raised, "deferred": deferred, "calls": calls}))


def test_at_random_moments_each_ctrl_c_is_raised_once_and_no_lock_stays_held() -> None:
    told = run(paced, SEED, 3000)
    assert told["raised"] == 3000
    assert told["deferred"] > 100, told


def insisting(seed: int, signals: int) -> None:
    """Bursts of Ctrl-C into fed calls that hold a lock: second ones are raised at once."""
    calls, raising = 0, False

    def previous(signum: int, frame: FrameType | None) -> None:
        nonlocal calls, raising
        calls += 1
        if raising:
            # The next one must not come out of the `except` that catches this.
            raising = False
            raise KeyboardInterrupt

    signal.signal(signal.SIGINT, previous)
    wakes: queue.SimpleQueue[None] = queue.SimpleQueue()
    interrupter = Interrupter(lambda: wakes.put(None))
    interrupter.install()
    lock, ended = threading.Lock(), threading.Event()

    def press() -> None:
        choose = random.Random(seed)
        for _ in range(signals):
            spin(choose.choice([0, 10, 100, 1000, 5000]))
            os.kill(os.getpid(), signal.SIGINT)
        ended.set()

    thread = threading.Thread(target=press)
    thread.start()
    raised = 0
    while not ended.is_set():
        try:
            raising = True
            with interrupter.inside, lock, interrupter.inside:
                spin(100)
            raising = False
        except KeyboardInterrupt:
            raised += 1
        assert not lock.locked()
        assert interrupter.inside.depth == 0
    thread.join()
    assert not interrupter.interrupted
    interrupter.uninstall()
    assert handler() is previous
    print(json.dumps({"calls": calls, "raised": raised, "wakes": wakes.qsize()}))


def test_in_bursts_each_ctrl_c_is_raised_or_one_with_another() -> None:
    signals = 5000
    told = run(insisting, SEED, signals)
    assert 0 < told["raised"] <= told["calls"] <= signals, told
    assert told["wakes"] <= signals


def racing(seed: int, rounds: int, pressed: bool) -> None:
    """Interrupt against uninstall, and a Ctrl-C against both: no signal of ours gets to the handler below."""
    choose = random.Random(seed)
    recorder = Recorder()
    signal.signal(signal.SIGINT, recorder)
    races: queue.SimpleQueue[tuple[Interrupter, int] | None] = queue.SimpleQueue()
    presses: queue.SimpleQueue[int | None] = queue.SimpleQueue()
    running: queue.SimpleQueue[None] = queue.SimpleQueue()
    sent: queue.SimpleQueue[bool] = queue.SimpleQueue()
    done: queue.SimpleQueue[None] = queue.SimpleQueue()
    sys.setswitchinterval(1e-5)

    def interrupt() -> None:
        while (race := races.get()) is not None:
            running.put(None)
            spin(race[1])
            sent.put(race[0].interrupt(Aborted()))

    def press() -> None:
        while (instructions := presses.get()) is not None:
            spin(instructions)
            os.kill(os.getpid(), signal.SIGINT)
            done.put(None)

    threads = [threading.Thread(target=target) for target in (interrupt, press)]
    for thread in threads:
        thread.start()
    counts = {"sent": 0, "fired": 0, "pressed": 0}

    def moment() -> int:
        return int(10 ** choose.uniform(0, 4))

    for _ in range(rounds):
        interrupter = Interrupter(lambda: None)
        assert interrupter.install()
        recorder.frames.clear()
        ours, theirs, third = moment(), moment(), moment()
        if pressed:
            presses.put(third)
        try:
            # From here on the error may come.
            races.put((interrupter, theirs))
            running.get()
            spin(ours)
            interrupter.uninstall()
        except Aborted:
            interrupter.uninstall()
        assert handler() is recorder
        counts["sent"] += sent.get()
        # The error may have come before this was taken, or after.
        while not running.empty():
            running.get()
        if pressed:
            done.get()
        # What was sent is delivered by the time that a system call returns.
        signal.pthread_sigmask(signal.SIG_BLOCK, ())
        spin(10)
        counts["fired"] += interrupter.raised is not None
        counts["pressed"] += len(recorder.frames)
        assert len(recorder.frames) <= pressed, "a signal of ours was taken for a Ctrl-C"
    races.put(None)
    presses.put(None)
    print(json.dumps(counts))


def calling(seed: int, rounds: int) -> None:
    """Interrupt against fed calls: whatever the moment, who waits after the last one is woken, once."""
    choose = random.Random(seed)
    forever: queue.SimpleQueue[None] = queue.SimpleQueue()
    running: queue.SimpleQueue[None] = queue.SimpleQueue()
    errands: queue.SimpleQueue[tuple[Callable[[BaseException], bool], Aborted, int] | None] = queue.SimpleQueue()
    sys.setswitchinterval(1e-5)

    def interrupt() -> None:
        while (errand := errands.get()) is not None:
            send, error, instructions = errand
            running.put(None)
            spin(instructions)
            send(error)

    thread = threading.Thread(target=interrupt)
    thread.start()
    counts = {"raised": 0, "refused": 0}

    def moment() -> int:
        return int(10 ** choose.uniform(0, 4))

    def play(error: Aborted, durations: list[int], instructions: int) -> None:
        def again() -> None:
            counts["refused"] += 1
            errands.put((interrupter.interrupt, error, 0))

        interrupter = Interrupter(again)
        interrupter.install()
        errands.put((interrupter.interrupt, error, instructions))
        try:
            with interrupter.inside:
                running.get()
            for duration in durations:
                with interrupter.inside:
                    spin(duration)
            forever.get()
        except Aborted as raised:
            counts["raised"] += raised is error
        interrupter.uninstall()
        while not running.empty():
            running.get()

    for _ in range(rounds):
        play(Aborted(), [moment() for _ in range(3)], moment())
    errands.put(None)
    thread.join()
    print(json.dumps(counts))


def test_who_waits_after_a_fed_call_is_woken_by_what_came_during_it() -> None:
    rounds = 2000
    told = run(calling, SEED, rounds)
    assert told["raised"] == rounds
    assert told["refused"] > 100, "few came during a call"


@pytest.mark.parametrize("pressed", [False, True])
def test_nothing_that_was_sent_arrives_after_uninstall(pressed: bool) -> None:
    rounds = 2000
    told = run(racing, SEED, rounds, pressed)
    assert told["fired"] <= told["sent"] <= rounds
    assert told["fired"] > 0, told
    assert told["sent"] < rounds, told
    if pressed:
        # One that comes at the very moment of ours is one with it.
        assert told["pressed"] + told["fired"] >= rounds * 0.5, told
