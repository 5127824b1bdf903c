"""What cannot be pickled is named, with the way to it and what to do."""

from __future__ import annotations

import logging
import pickle
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cloudpickle
import pytest

import fed
from fed.object import FedObject, ObjectId
from fed.runtime.arguments import Shape
from fed.runtime.contract import Call
from fed.runtime.pickling import argument_error, code_error, held_error, result_error
from fed.testing import simulate

GUARD = threading.Lock()
HANDLE: FedObject[int] = FedObject(ObjectId(0, 7, 0), "alice", "train", None)
INSIDE = "make it inside the task, or in the constructor of an actor"


def around(value: Any) -> Callable[[], Any]:
    def code() -> Any:
        return [value for _ in range(1)]

    return code


def error_of(code: object) -> str:
    with pytest.raises(Exception) as raised:
        cloudpickle.dumps(code)
    assert isinstance(raised.value, Exception)
    return str(code_error(code, raised.value, cloudpickle.dumps))


class Loop:
    def __init__(self) -> None:
        self.again = self
        self.lock = threading.Lock()


class Odd:
    def __reduce__(self) -> Any:
        raise KeyError("no")


def test_the_variable_of_code_is_named() -> None:
    assert error_of(around(threading.Lock())) == f"its variable value (lock) cannot be pickled: {INSIDE}"
    assert error_of(around({"a": [1, {"b": threading.RLock()}]})) == (
        f"its variable value['a'][1]['b'] (RLock) cannot be pickled: {INSIDE}"
    )
    assert error_of(around(threading.Thread())) == f"its variable value (Thread) cannot be pickled: {INSIDE}"
    assert error_of(around(around(threading.Lock()))) == f"its variable value.value (lock) cannot be pickled: {INSIDE}"
    assert error_of(around(Loop())) == f"its variable value.lock (lock) cannot be pickled: {INSIDE}"
    assert error_of(around(Odd())) == "its variable value (Odd) cannot be pickled: KeyError: 'no'"
    assert error_of(around(HANDLE)) == (
        "its variable value: <FedObject #7 train at party 'alice'> cannot be pickled: pass it as an argument of a fed "
        "call, directly or inside a list, tuple, dict or dataclass, and the task receives its value"
    )


def test_what_the_system_has_opened_is_named(tmp_path: Path) -> None:
    with socket.socket() as opened:
        assert error_of(around(opened)) == f"its variable value (socket) cannot be pickled: {INSIDE}"
    with (tmp_path / "file").open("wb") as file:
        assert error_of(around(file)) == f"its variable value (BufferedWriter) cannot be pickled: {INSIDE}"


def test_a_logger_is_pickled_by_its_name() -> None:
    code = cloudpickle.loads(cloudpickle.dumps(around(logging.getLogger("some"))))
    assert code() == [logging.getLogger("some")]


def test_a_global_variable_and_an_attribute_of_a_class_are_named() -> None:
    space: dict[str, Any] = {"GUARD": GUARD, "__name__": "__main__"}
    exec("def code():\n    return [GUARD for _ in range(2)]\nclass Held:\n    guard = [GUARD]\n", space)
    assert error_of(space["code"]) == f"its variable GUARD (lock) cannot be pickled: {INSIDE}"
    assert error_of(space["Held"]) == f"its variable guard[0] (lock) cannot be pickled: {INSIDE}"


def test_an_argument_is_named_by_its_place_or_its_keyword() -> None:
    call = Call((1, [threading.Lock()]), Shape(("first",)))
    assert str(argument_error(call, cloudpickle.dumps)) == (
        "[0] of argument 'first' (lock) cannot be pickled: make it inside the task"
    )
    assert argument_error(Call((1, [2])), cloudpickle.dumps) is None
    assert held_error([2], cloudpickle.dumps) is None
    assert str(held_error(threading.Lock(), cloudpickle.dumps)) == (
        "an argument (lock) cannot be pickled: make it inside the task"
    )


def test_a_result_is_named() -> None:
    made = result_error((1, threading.Lock()), TypeError("cannot pickle"), cloudpickle.dumps)
    assert type(made) is pickle.PicklingError
    assert str(made) == "[1] of the result (lock) cannot be pickled: return plain data"


@fed.remote
def identity(value: Any) -> Any:
    return value


@fed.remote
def made() -> Any:
    return {"guard": threading.Lock()}


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: identity.party("alice").remote(GUARD), "argument 1 (lock) cannot be pickled: make it inside the task"),
        (lambda: made.party("alice").remote(), "['guard'] of the result (lock) cannot be pickled: return plain data"),
    ],
)
def test_the_party_reads_what_it_was_and_the_others_that_it_was(call: Callable[[], Any], text: str) -> None:
    def main() -> None:
        with fed.job():
            fed.get(call())

    errors = simulate(main, parties=["alice", "bob"], check=False).errors
    assert str(errors["alice"]) == f"{errors['bob']}: {text}"
    for error in errors.values():
        assert isinstance(error, fed.TaskError)
        assert error.type_name == "PicklingError"
    assert "lock" not in str(errors["bob"])
