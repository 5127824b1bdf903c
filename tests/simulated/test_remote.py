"""Handles and what is wrong with a call, found at the call in every party."""

from __future__ import annotations

import copy
import dataclasses
import functools
import inspect
import operator
import pickle
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

import fed
from fed.runtime.signatures import Parameters
from fed.testing import simulate

PARTIES = ["alice", "bob", "carol"]


@fed.remote
def identity(value: Any) -> Any:
    return value


@fed.remote
def pair(first: Any, second: Any = 2) -> tuple[Any, Any]:
    return first, second


@fed.remote
class Counter:
    def __init__(self, start: int = 0) -> None:
        self.count = start

    def add(self, step: int) -> int:
        self.count += step
        return self.count

    def add_twice(self, step: int) -> int:
        self.add(step)
        return self.add(step)

    @staticmethod
    def double(value: int) -> int:
        return 2 * value

    @classmethod
    def named(cls) -> str:
        return cls.__name__

    def _private(self) -> None: ...


class Odd:
    """What is called through it is not bound to it, but for the last one."""

    one_more = functools.partial(operator.add, 1)
    text = str
    both = functools.partialmethod(lambda self, first, second: (first, second), 1)


def in_a_job(program: Callable[[], Any]) -> Callable[[], Any]:
    @functools.wraps(program)
    def main() -> Any:
        with fed.job():
            return program()

    return main


def refusals(program: Callable[[], Any]) -> list[BaseException]:
    """What a call raises, in every party."""

    def main() -> BaseException:
        with fed.job():
            try:
                program()
            except (fed.FedError, TypeError, AttributeError) as error:
                return error
            raise RuntimeError("nothing was raised")

    return list(simulate(main, parties=PARTIES).results.values())


@pytest.mark.parametrize(
    ("call", "error", "sentence"),
    [
        (lambda: identity.remote(1), fed.UsageError, "identity is bound to no party"),
        (lambda: identity.party("mallory").remote(1), fed.UsageError, "no party 'mallory'.*alice, bob, carol"),
        (lambda: identity.party("alice").remote(), TypeError, "identity.*missing a required argument: 'value'"),
        (lambda: identity.party("alice").remote(1, 2), TypeError, "identity.*too many positional arguments"),
        (
            lambda: identity.party("alice").remote(1, wrong=2),
            TypeError,
            "identity.*unexpected keyword argument 'wrong'",
        ),
        (lambda: identity(1), fed.UsageError, r"call identity\.party\(\.\.\.\)\.remote"),
        (lambda: identity.party(3), fed.UsageError, "named by a string, not by int"),  # type: ignore[arg-type]
        (lambda: identity.options(num_cpu=1), fed.UsageError, "no option 'num_cpu' for a function.*'num_cpus'"),
        (lambda: identity.options(num_returns=-1), fed.UsageError, "num_returns is a whole number from 0, not -1"),
        (lambda: identity.options(num_returns="dynamic"), fed.UsageError, "num_returns is a whole number"),
        (lambda: Counter.remote(), fed.UsageError, "Counter is bound to no party"),
        (lambda: Counter.party("alice").remote(1, 2), TypeError, "Counter.*too many positional arguments"),
        (lambda: Counter.options(num_returns=2), fed.UsageError, "no option 'num_returns' for a class"),
        (lambda: Counter.party("bob").remote().ad, AttributeError, "Counter has no method 'ad': did you mean 'add'"),
        (lambda: Counter.party("bob").remote().zzz, AttributeError, "no method 'zzz': it has add, add_twice"),
        (lambda: Counter.party("bob").remote().add.remote(), TypeError, "Counter.add.*missing a required argument"),
        (lambda: Counter.party("bob").remote().add(1), fed.UsageError, r"call Counter\.add\.remote"),
        (lambda: Counter.party("bob").remote().add.options(num_cpus=1), fed.UsageError, "for a method"),
        (lambda: fed.get(3), fed.UsageError, "fed.get takes fed objects, not int"),
        (lambda: fed.get([identity.party("bob").remote(1)], timeout=-1), fed.UsageError, "timeout is a number"),
        (lambda: fed.kill("actor"), fed.UsageError, "fed.kill takes an actor, not str"),  # type: ignore[arg-type]
        (lambda: fed.init(), fed.UsageError, "called already"),
        (lambda: pair.party("bob").remote({identity.party("bob").remote(1)}), fed.UsageError, "inside a set"),
        (lambda: bool(identity.party("bob").remote(1)), TypeError, "no truth value before fed.get"),
        (lambda: list(identity.party("bob").remote(1)), TypeError, "cannot be iterated"),
        (lambda: pickle.dumps(identity.party("bob").remote(1)), TypeError, "cannot be pickled"),
        (lambda: pickle.dumps(Counter.party("bob").remote()), TypeError, "cannot be pickled"),
    ],
)
def test_a_wrong_call_is_refused_at_the_call_in_every_party(
    call: Callable[[], Any], error: type[Exception], sentence: str
) -> None:
    found = refusals(call)
    assert len(found) == len(PARTIES)
    for one in found:
        assert isinstance(one, error)
        with pytest.raises(error, match=sentence):
            raise one


@pytest.mark.parametrize(
    "call",
    [
        lambda: identity.party("alice").remote(1),
        lambda: Counter.party("alice").remote(),
        lambda: fed.get([]),
        lambda: fed.parties(),
        lambda: fed.party(),
        lambda: fed.errors(),
        lambda: fed.statistics(),
    ],
)
def test_a_call_outside_a_job_says_how_to_enter_one(call: Callable[[], Any]) -> None:
    with pytest.raises(fed.UsageError, match=r"call fed\.init\(\) first"):
        call()


def test_a_shutdown_outside_a_job_does_nothing() -> None:
    fed.shutdown()


def test_a_call_from_another_thread_is_refused() -> None:
    def main() -> BaseException:
        found: list[BaseException] = []

        def elsewhere() -> None:
            try:
                identity.party("alice").remote(1)
            except fed.UsageError as error:
                found.append(error)

        with fed.job():
            thread = threading.Thread(target=elsewhere)
            thread.start()
            thread.join()
        return found[0]

    for error in simulate(main, parties=PARTIES).results.values():
        assert "from the one thread that did" in str(error)


def test_a_call_from_another_thread_that_shares_the_context_is_refused_too() -> None:
    import contextvars

    def main() -> BaseException:
        found: list[BaseException] = []

        def elsewhere() -> None:
            try:
                identity.party("alice").remote(1)
            except fed.UsageError as error:
                found.append(error)

        with fed.job():
            thread = threading.Thread(target=contextvars.copy_context().run, args=(elsewhere,))
            thread.start()
            thread.join()
        return found[0]

    for error in simulate(main, parties=PARTIES).results.values():
        assert "from the one thread that did" in str(error)


@fed.remote
def calls_fed() -> str:
    try:
        identity.party("alice").remote(1)
    except fed.UsageError as error:
        return str(error)
    return "allowed"


def test_a_fed_call_inside_a_task_is_refused() -> None:
    main = in_a_job(lambda: fed.get(calls_fed.party("bob").remote()))
    assert "not from inside tasks" in simulate(main, parties=PARTIES)["alice"]


def test_handles_are_values() -> None:
    a, b = identity.party("alice"), identity.party("bob")
    assert (repr(a), repr(b)) == (
        "<FedFunction identity at party 'alice'>",
        "<FedFunction identity at party 'bob'>",
    )
    assert repr(identity) == "<FedFunction identity>"
    with pytest.raises(AttributeError, match="immutable"):
        a._party = "bob"
    with pytest.raises(AttributeError, match="immutable"):
        del a._party


def test_two_handles_of_one_function_are_two_things() -> None:
    def program() -> list[str]:
        where = fed.remote(lambda: threading.current_thread().name)
        a, b = where.party("alice"), where.party("bob")
        names: list[str] = fed.get([a.remote(), b.remote(), a.remote()])
        return names

    assert [name.split("-")[1] for name in simulate(in_a_job(program), parties=PARTIES)["carol"]] == [
        "alice",
        "bob",
        "alice",
    ]


def test_options_make_a_new_handle_and_last_one_wins() -> None:
    def program() -> Any:
        two = pair.options(num_returns=2)
        both = pair.party("alice").remote(1)
        first, second = two.party("bob").remote(1, second=3)
        nothing = identity.options(num_returns=0).party("bob").remote(None)
        one = two.options(num_returns=1).party("bob").remote(5)
        return fed.get([both, first, second, one]), nothing

    assert simulate(in_a_job(program), parties=PARTIES)["carol"] == ([(1, 2), 1, 3, (5, 2)], None)


def test_the_decorator_takes_options() -> None:
    @fed.remote(num_returns=2, num_cpus=1)
    def halves(value: int) -> tuple[int, int]:
        return value // 2, value - value // 2

    def program() -> Any:
        return fed.get(halves.party("bob").remote(5))

    assert simulate(in_a_job(program), parties=PARTIES)["alice"] == [2, 3]


class Held:
    def method(self) -> None: ...

    def items(self) -> Any:
        yield 1

    async def stream(self) -> Any:
        yield 1

    @property
    def size(self) -> int:
        return 1

    @classmethod
    def named(cls) -> str:
        return cls.__name__

    def __call__(self) -> None: ...


def of_ray() -> Any:
    """What looks like something that ``@ray.remote`` made."""
    return type("RemoteFunction", (), {"__module__": "ray.remote_function"})()


@pytest.mark.parametrize(
    ("target", "sentence"),
    [
        (3, "takes a function or a class, not int$"),
        ("alice", r"takes a function or a class, not str: bind what it makes to a party with .party\('alice'\)"),
        (identity, "<FedFunction identity> is federated already"),
        (Counter, "<FedClass Counter> is federated already"),
        (identity.party("alice"), "federated already"),
        (functools.partial(operator.add, 1), "not partial: write a function that calls it"),
        (Held(), "not Held: write a function that calls it"),
        (vars(Held)["size"], "not property: write a function that calls it"),
        (vars(Held)["named"], "not classmethod: write a function that calls it"),
        (of_ray(), "not what @ray.remote made of it: leave that out"),
    ],
)
def test_what_cannot_be_federated(target: Any, sentence: str) -> None:
    with pytest.raises(fed.UsageError, match=sentence):
        fed.remote(target)


@pytest.mark.parametrize(
    ("target", "arguments", "made"),
    [
        (lambda first: -first, (3,), -3),
        (max, (1, 4), 4),
        (len, ("four",), 4),
        (staticmethod(operator.neg), (5,), -5),
        (Held.named, (), "Held"),
        ("a-b".split, ("-",), ["a", "b"]),
    ],
)
def test_what_can_be_federated(target: Any, arguments: tuple[Any, ...], made: Any) -> None:
    def program() -> Any:
        return fed.get(fed.remote(target).party("bob").remote(*arguments))

    assert simulate(in_a_job(program), parties=PARTIES)["alice"] == made


@fed.remote
class Twice(Counter):
    def __init__(self, start: int) -> None:
        super().__init__(2 * start)

    def add(self, step: int) -> int:
        added: int = super().add(2 * step)
        return added

    def is_counter(self) -> bool:
        return isinstance(self, Counter) and issubclass(type(self), Counter)


class NamesItsBase(Counter):
    def __init__(self) -> None:
        Counter.__init__(self, 1, 2, 3)  # type: ignore[call-arg]


def test_a_class_may_derive_from_a_federated_one() -> None:
    def program() -> Any:
        actor = Twice.party("bob").remote(5)
        return fed.get([actor.add.remote(1), actor.add_twice.remote(1), actor.is_counter.remote()])

    assert simulate(in_a_job(program), parties=PARTIES)["alice"] == [12, 16, True]
    assert issubclass(Twice, Counter)
    assert not issubclass(Held, Counter)
    assert not isinstance(Held(), Counter)


@pytest.mark.parametrize(
    ("base", "sentence"),
    [
        (Counter.party("alice"), "a class derives from Counter, and not from <FedClass Counter at party 'alice'>"),
        (identity, "<FedFunction identity> is no class, so none can derive from it"),
    ],
)
def test_what_no_class_can_derive_from(base: Any, sentence: str) -> None:
    with pytest.raises(fed.UsageError, match=sentence):

        class Derived(base):  # type: ignore[misc]
            pass


@pytest.mark.parametrize(
    ("use", "error", "sentence"),
    [
        (
            lambda: Counter.add.remote(1),
            AttributeError,
            r"Counter is federated: make an actor .* call add\.remote\(\.\.\.\)",
        ),
        (lambda: Counter.zzz, AttributeError, "Counter is federated, and has party, options and remote, but no 'zzz'"),
        (lambda: Counter(1), fed.UsageError, "Counter is federated: make an actor with"),
        (NamesItsBase, fed.UsageError, r"call super\(\).__init__\(\.\.\.\)"),
    ],
)
def test_a_federated_class_that_is_used_as_the_plain_one(
    use: Callable[[], Any], error: type[Exception], sentence: str
) -> None:
    with pytest.raises(error, match=sentence):
        use()


def test_a_generator_method_and_a_property_are_refused_at_the_call_in_every_party() -> None:
    held: Any = fed.remote(Held)
    for name in ("items", "stream"):
        for error in refusals(lambda name=name: getattr(held.party("bob").remote(), name).remote()):  # type: ignore[misc]
            assert str(error) == f"Held.{name} is a generator: return a list, or use num_returns"
    for error in refusals(lambda: held.party("bob").remote().size.remote()):
        assert str(error) == "Held.size is no method: write one that returns it"


def test_generators_and_coroutines_are_refused_at_the_definition() -> None:
    def generator() -> Any:
        yield 1

    async def coroutine() -> int:
        return 1

    with pytest.raises(fed.UsageError, match="generator is a generator"):
        fed.remote(generator)
    with pytest.raises(fed.UsageError, match="coroutine is a coroutine function"):
        fed.remote(coroutine)


def test_actor_methods_of_every_kind() -> None:
    def program() -> Any:
        counter = Counter.party("bob").remote(start=identity.party("alice").remote(10))
        return fed.get(
            [
                counter.add.remote(1),
                counter.add_twice.remote(identity.party("carol").remote(5)),
                counter.double.remote(4),
                counter.named.remote(),
            ]
        )

    assert simulate(in_a_job(program), parties=PARTIES)["alice"] == [11, 21, 8, "Counter"]


@fed.remote
class Meeting:
    """Its methods wait for one another, so they must run concurrently."""

    def __init__(self) -> None:
        import asyncio

        self.event = asyncio.Event()

    async def wait(self) -> str:
        await self.event.wait()
        return "met"

    async def come(self) -> None:
        self.event.set()


def test_coroutine_methods_run_concurrently() -> None:
    def program() -> Any:
        meeting = Meeting.party("bob").remote()
        waiting = meeting.wait.remote()
        meeting.come.remote()
        return fed.get(waiting, timeout=10)

    assert simulate(in_a_job(program), parties=PARTIES)["alice"] == "met"


def test_a_killed_actor_ends_its_calls() -> None:
    def program() -> Any:
        counter = Counter.party("bob").remote()
        first = fed.get(counter.add.remote(1))
        fed.kill(counter)
        with pytest.raises(fed.TaskError) as caught:
            fed.get(counter.add.remote(1))
        return first, caught.value.kind, caught.value.party

    main = in_a_job(program)
    results = simulate(main, parties=PARTIES, on_error="isolate")
    assert dict(results) == dict.fromkeys(PARTIES, (1, fed.Kind.ACTOR_DIED, "bob"))


@dataclasses.dataclass(frozen=True)
class Batch:
    data: Any
    label: str = "x"


class Point(NamedTuple):
    x: Any
    y: Any


def test_fed_objects_nested_anywhere_arrive_as_values() -> None:
    @fed.remote
    def seen(*args: Any, **kwargs: Any) -> str:
        return repr((args, kwargs))

    def program() -> Any:
        a, b = identity.party("alice").remote(1), identity.party("bob").remote([2])
        nested = seen.party("carol").remote(
            a, [a, (b, {"k": a})], Point(a, b), Batch(b), key={"deep": [Batch(Point(1, a))]}, plain={"no": "objects"}
        )
        return fed.get(nested)

    expected = repr(
        (
            (1, [1, ([2], {"k": 1})], Point(1, [2]), Batch([2])),
            {"key": {"deep": [Batch(Point(1, 1))]}, "plain": {"no": "objects"}},
        )
    )
    assert simulate(in_a_job(program), parties=PARTIES)["alice"] == expected


@fed.remote
def swallow(*args: Any) -> None: ...


def test_the_containers_of_the_caller_are_left_alone() -> None:
    def program() -> Any:
        a = identity.party("alice").remote(1)
        batch, listed = Batch(a), [a]
        fed.get(swallow.party("bob").remote(batch, listed))
        return batch.data is a and listed[0] is a

    assert dict(simulate(in_a_job(program), parties=PARTIES)) == dict.fromkeys(PARTIES, True)


def test_an_object_crosses_to_each_party_once_however_many_use_it() -> None:
    def program() -> Any:
        one = identity.party("alice").remote(b"x" * 100)
        uses = [swallow.party(party).remote(one, [one]) for party in ("bob", "bob", "carol", "alice")]
        fed.get(uses)
        fed.get([one, one])
        fed.get(one)
        return fed.statistics()

    results = simulate(in_a_job(program), parties=PARTIES)
    # One to each of the others, besides alice's own None of the last swallow.
    assert results["alice"].objects_sent == {"bob": 2, "carol": 2}
    assert results["alice"].bytes_sent["bob"] < 250


def test_fed_get_takes_one_and_every_container() -> None:
    def program() -> Any:
        a, b = identity.party("alice").remote(1), identity.party("bob").remote(2)
        return [
            fed.get(a),
            fed.get([a, b, a]),
            fed.get((a, b)),
            fed.get({"a": a, "n": {"b": [b]}, "plain": 7}),
            fed.get([]),
            fed.get(Point(a, 0)),
        ]

    assert simulate(in_a_job(program), parties=PARTIES)["carol"] == [
        1,
        [1, 2, 1],
        (1, 2),
        {"a": 1, "n": {"b": [2]}, "plain": 7},
        [],
        Point(1, 0),
    ]


def test_an_object_of_an_earlier_job_is_refused() -> None:
    def main() -> Any:
        with fed.job():
            old = identity.party("alice").remote(1)
            actor = Counter.party("alice").remote()
            fed.get(old)
        with fed.job():
            raised = []
            for call in (lambda: fed.get(old), lambda: actor.add.remote(1), lambda: fed.kill(actor)):
                with pytest.raises(fed.UsageError, match="earlier job") as caught:
                    call()
                raised.append(str(caught.value))
            return raised

    assert all(len(raised) == 3 for raised in simulate(main, parties=PARTIES).results.values())


def test_a_fed_object_shows_what_it_is_and_does_not_change() -> None:
    def program() -> Any:
        one = identity.party("bob").remote(1)
        with pytest.raises(AttributeError, match="immutable"):
            one.party = "alice"
        with pytest.raises(AttributeError, match="immutable"):
            del one.id
        return repr(one), copy.copy(one) is one, copy.deepcopy([one])[0] is one

    assert simulate(in_a_job(program), parties=PARTIES)["alice"] == (
        "<FedObject #0 identity at party 'bob'>",
        True,
        True,
    )


def test_every_public_name_is_documented_and_listed() -> None:
    assert fed.__all__ == sorted(fed.__all__)
    for name in fed.__all__:
        assert inspect.getdoc(getattr(fed, name)), f"fed.{name} has no docstring"
    public = {name for name in vars(fed) if not name.startswith("_") and not inspect.ismodule(getattr(fed, name))}
    assert public == set(fed.__all__)


def test_what_is_not_bound_to_the_instance_takes_what_it_says() -> None:
    def program() -> Any:
        odd: Any = fed.remote(Odd).party("bob").remote()
        return fed.get([odd.one_more.remote(1), odd.text.remote(3), odd.both.remote(4)])

    results = simulate(in_a_job(program), parties=PARTIES)
    assert dict(results) == {party: [2, "3", (1, 4)] for party in PARTIES}


CALLED: Any = [
    lambda: None,
    lambda first: None,
    lambda first, second=2: None,
    lambda first, *rest: None,
    lambda first, *, named: None,
    lambda first, *, named=1: None,
    lambda **rest: None,
    lambda first, /, second=2: None,
]


@pytest.mark.parametrize("called", CALLED)
def test_arguments_are_refused_where_python_would(called: Callable[..., Any]) -> None:
    signature = inspect.signature(called)
    parameters = Parameters(signature)

    def fits(check: Callable[[], object]) -> bool:
        try:
            check()
        except TypeError:
            return False
        return True

    for count in range(4):
        for names in ((), ("first",), ("second",), ("named",), ("first", "second"), ("other",)):
            args, kwargs = (0,) * count, dict.fromkeys(names, 0)
            assert fits(lambda args=args, kwargs=kwargs: parameters.check("called", args, kwargs)) == fits(  # type: ignore[misc]
                lambda args=args, kwargs=kwargs: signature.bind(*args, **kwargs)  # type: ignore[misc]
            )
