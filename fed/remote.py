"""``@fed.remote`` and the handles that it makes.

Handles are values: ``f.party("alice")`` makes a new one and leaves ``f`` as it was, so two of them never disturb
one another. What is wrong with a call is found at the call, in every party, whether or not it runs there.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping
from typing import Any, Generic, ParamSpec, TypeVar, overload

from fed.context import current_job
from fed.engine.job import Job
from fed.engine.records import Actor
from fed.errors import UsageError
from fed.object import FedObject
from fed.runtime.arguments import pack
from fed.runtime.contract import ActorBody, TaskBody
from fed.runtime.options import ACTOR, METHOD, TASK
from fed.runtime.signatures import (
    Method,
    Parameters,
    is_generator,
    is_method,
    method_of,
    noted_by_ray,
    parameters_of,
    public_names,
)

__all__ = ["FedActor", "FedClass", "FedFunction", "FedMethod", "kill", "remote"]

P = ParamSpec("P")
T = TypeVar("T")


class _Handle:
    """What the handles share: they are made by this library and never change."""

    __slots__ = ()

    def _set(self, **attributes: object) -> None:
        for name, value in attributes.items():
            object.__setattr__(self, name, value)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{self!r} is immutable; cannot set {name!r}")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"{self!r} is immutable; cannot delete {name!r}")

    def __mro_entries__(self, bases: tuple[object, ...]) -> tuple[type, ...]:
        raise UsageError(f"{self!r} is no class, so none can derive from it")


class FedFunction(_Handle, Generic[P, T]):
    """A function that runs in a party. Made by `fed.remote`."""

    __slots__ = ("__weakref__", "_body", "_parameters", "_party", "_returns")

    _body: TaskBody
    _party: str | None
    _returns: int
    _parameters: Parameters | None

    def __init__(self, body: TaskBody, party: str | None, returns: int, parameters: Parameters | None) -> None:
        self._set(_body=body, _party=party, _returns=returns, _parameters=parameters)

    def party(self, party: str) -> FedFunction[P, T]:
        """The same function, bound to a party.

        Args:
            party: Where it will run.
        """
        return FedFunction(self._body, _party_name(party), self._returns, self._parameters)

    def options(self, **options: Any) -> FedFunction[P, T]:
        """The same function, run with Ray options.

        Args:
            **options: Those of `ray.remote`, for example ``num_cpus``, ``num_gpus``, ``resources``, ``max_retries``,
                ``name``; and ``num_returns``, the number of objects that one call makes (0 or more).

        Raises:
            UsageError: An option does not exist, or may not be what it is.
        """
        TASK.check(options)
        returns, options = _taken_returns(options, self._returns)
        body = (
            self._body if not options else TaskBody(self._body.code, self._body.name, {**self._body.options, **options})
        )
        return FedFunction(body, self._party, returns, self._parameters)

    def remote(self, *args: Any, **kwargs: Any) -> Any:
        """Call it. Returns at once.

        Args:
            *args: Values, or fed objects; these may also be inside lists, tuples, dicts and dataclasses, and the
                function receives their values.
            **kwargs: Likewise.

        Returns:
            A `FedObject`; with ``num_returns`` a list of as many, and None for 0.

        Raises:
            UsageError: No party, or one that does not exist, or no job.
            TypeError: The arguments do not fit the function.
        """
        job = current_job()
        party = _require_party(job, self._party, self._body.name)
        if self._parameters is not None:
            self._parameters.check(self._body.name, args, kwargs)
        return _results(job.run(self._body, party, pack(args, kwargs), self._returns))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Refuse: a federated function is called through `remote`."""
        raise UsageError(f"{self._body.name} is federated: call {self._body.name}.party(...).remote(...)")

    def __repr__(self) -> str:
        bound = f" at party {self._party!r}" if self._party else ""
        return f"<FedFunction {self._body.name}{bound}>"

    def __reduce__(self) -> Any:
        # The functions and classes around it may mention it; a call inside a task is refused there.
        return FedFunction, (self._body, self._party, self._returns, self._parameters)


class FedClass(_Handle):
    """A class whose instances live in a party, as actors. Made by `fed.remote`.

    A class that derives from it derives from the class as the user wrote it, and is federated if it is decorated too.
    """

    __slots__ = ("__weakref__", "_body", "_parameters", "_party")

    _body: ActorBody
    _party: str | None
    _parameters: Parameters | None

    def __init__(self, *_: object, **__: object) -> None:
        """Refuse: it is called where a derived class names the base that it initialises."""
        raise UsageError("a federated class is no base to be named: call super().__init__(...)")

    @classmethod
    def _made(cls, body: ActorBody, party: str | None, parameters: Parameters | None) -> FedClass:
        handle = cls.__new__(cls)
        handle._set(_body=body, _party=party, _parameters=parameters)
        return handle

    def __mro_entries__(self, bases: tuple[object, ...]) -> tuple[type, ...]:
        if self._party is not None:
            raise UsageError(f"a class derives from {self._body.name}, and not from {self!r}")
        return (self._code,)

    def __instancecheck__(self, instance: object) -> bool:
        return isinstance(instance, self._code)

    def __subclasscheck__(self, subclass: Any) -> bool:
        return issubclass(subclass._code if isinstance(subclass, FedClass) else subclass, self._code)

    def __getattr__(self, name: str) -> Any:
        body = object.__getattribute__(self, "_body")
        if is_method(body.code, name):
            raise AttributeError(
                f"{body.name} is federated: make an actor with {body.name}.party(...).remote(...), and call "
                f"{name}.remote(...) of that"
            )
        raise AttributeError(f"{body.name} is federated, and has party, options and remote, but no {name!r}")

    @property
    def _code(self) -> type:
        code: Any = self._body.code
        return code  # type: ignore[no-any-return]

    def party(self, party: str) -> FedClass:
        """The same class, bound to a party.

        Args:
            party: Where its instances will live.
        """
        return self._made(self._body, _party_name(party), self._parameters)

    def options(self, **options: Any) -> FedClass:
        """The same class, its actors made with Ray options.

        Args:
            **options: Those of `ray.remote` for actors, for example ``num_cpus``, ``max_concurrency``, ``name``.

        Raises:
            UsageError: An option does not exist, or may not be what it is.
        """
        ACTOR.check(options)
        body = ActorBody(self._body.code, self._body.name, {**self._body.options, **options})
        return self._made(body, self._party, self._parameters)

    def remote(self, *args: Any, **kwargs: Any) -> FedActor:
        """Make an actor. Returns its handle at once.

        Args:
            *args: Arguments of the constructor, as in `FedFunction.remote`.
            **kwargs: Likewise.

        Raises:
            UsageError: No party, or one that does not exist, or no job.
            TypeError: The arguments do not fit the constructor.
        """
        job = current_job()
        party = _require_party(job, self._party, self._body.name)
        if self._parameters is not None:
            self._parameters.check(self._body.name, args, kwargs)
        return FedActor(job, self._body, party, job.create(self._body, party, pack(args, kwargs)))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Refuse: a federated class is instantiated through `remote`."""
        raise UsageError(f"{self._body.name} is federated: make an actor with {self._body.name}.party(...).remote(...)")

    def __repr__(self) -> str:
        bound = f" at party {self._party!r}" if self._party else ""
        return f"<FedClass {self._body.name}{bound}>"

    def __reduce__(self) -> Any:
        return FedClass._made, (self._body, self._party, self._parameters)


class FedActor(_Handle):
    """An actor in one party, held as a handle in all of them. Its methods are attributes with a ``remote``."""

    __slots__ = ("__weakref__", "_actor", "_body", "_job", "_methods", "_party")

    _job: Job
    _body: ActorBody
    _party: str
    _actor: Actor
    _methods: dict[str, Method]

    def __init__(self, job: Job, body: ActorBody, party: str, actor: Actor) -> None:
        # Of each method that was called: to find out takes longer than a call.
        self._set(_job=job, _body=body, _party=party, _actor=actor, _methods={})

    def __getattr__(self, name: str) -> FedMethod:
        body = object.__getattribute__(self, "_body")
        methods = object.__getattribute__(self, "_methods")
        method = methods.get(name)
        if method is None and is_method(body.code, name):
            method = methods[name] = method_of(body.code, name)
        if method is None and name in public_names(body.code):
            raise AttributeError(f"{body.name}.{name} is no method: write one that returns it")
        if method is None:
            public = [each for each in public_names(body.code) if is_method(body.code, each)]
            near = difflib.get_close_matches(name, public, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(public) or 'none'}"
            raise AttributeError(f"actor class {body.name} has no method {name!r}: {hint}")
        returns, options = _taken_returns(method.options, 1)
        return FedMethod(self, name, returns, options)

    def __repr__(self) -> str:
        return f"<FedActor {self._body.name} at party {self._party!r}>"

    def __reduce__(self) -> Any:
        raise TypeError(f"{self!r} cannot be pickled: an actor is called by the driver, not by tasks")


class FedMethod(_Handle):
    """A method of an actor."""

    __slots__ = ("_actor", "_name", "_options", "_returns")

    _actor: FedActor
    _name: str
    _returns: int
    _options: Mapping[str, Any]

    def __init__(self, actor: FedActor, name: str, returns: int, options: Mapping[str, Any]) -> None:
        self._set(_actor=actor, _name=name, _returns=returns, _options=options)

    def options(self, **options: Any) -> FedMethod:
        """The same method, called with Ray options.

        Args:
            **options: ``num_returns``, ``max_task_retries``, ``retry_exceptions``, ``name``; they go before what
                ``@ray.method`` says of the method.

        Raises:
            UsageError: An option does not exist, or may not be what it is.
        """
        METHOD.check(options)
        returns, options = _taken_returns(options, self._returns)
        return FedMethod(self._actor, self._name, returns, {**self._options, **options})

    def remote(self, *args: Any, **kwargs: Any) -> Any:
        """Call it. Returns at once.

        Args:
            *args: As in `FedFunction.remote`.
            **kwargs: Likewise.

        Returns:
            As in `FedFunction.remote`.

        Raises:
            UsageError: The job that made the actor is over, or this is another thread.
            TypeError: The arguments do not fit the method.
        """
        job = current_job()
        actor = self._actor
        label = f"{actor._body.name}.{self._name}"
        method = actor._methods[self._name]
        if method.is_generator:
            raise UsageError(f"{label} is a generator: return a list, or use num_returns")
        if actor._job is not job:
            raise UsageError(f"{actor!r} belongs to an earlier job")
        job.check_party(actor._party)
        if method.parameters is not None:
            method.parameters.check(label, args, kwargs)
        packed = pack(args, kwargs)
        return _results(job.call(actor._actor, label, self._name, actor._party, packed, self._returns, self._options))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Refuse: a method is called through `remote`."""
        raise UsageError(f"call {self._actor._body.name}.{self._name}.remote(...)")

    def __repr__(self) -> str:
        return f"<FedMethod {self._name} of {self._actor!r}>"


@overload
def remote(target: type, **options: Any) -> FedClass: ...
@overload
def remote(target: Callable[P, T], **options: Any) -> FedFunction[P, T]: ...
@overload
def remote(**options: Any) -> Callable[[Callable[..., Any]], Any]: ...
def remote(target: Any = None, **options: Any) -> Any:
    """Make a function or a class federated: bound to a party, it runs there and nowhere else.

    Use as ``@fed.remote`` or ``@fed.remote(num_cpus=2)``. A class becomes an actor class.

    Args:
        target: The function or class.
        **options: Ray options for every call, as in ``.options(...)``.

    Returns:
        A `FedFunction` or a `FedClass`.

    Raises:
        UsageError: The target is neither, or is a generator, or an option does not exist, or may not be what it is.
    """
    if target is None:
        return lambda later: _federated(later).options(**options)
    return _federated(target).options(**options)


def _federated(target: Any) -> FedFunction[Any, Any] | FedClass:
    if isinstance(target, (FedFunction, FedClass)):
        raise UsageError(f"{target!r} is federated already")
    name = getattr(target, "__name__", type(target).__name__)
    if inspect.isclass(target):
        body = ActorBody(target, name, {})
        for method, member in body.methods().items():
            try:
                METHOD.check(noted_by_ray(member))
            except UsageError as error:
                raise UsageError(f"@ray.method of {name}.{method}: {error}") from None
        return FedClass._made(body, None, parameters_of(target))
    if isinstance(target, staticmethod):
        target = target.__func__
    if not inspect.isroutine(target) or not callable(target):
        raise UsageError(f"@fed.remote takes a function or a class, not {_kind(target)}")
    if is_generator(target):
        raise UsageError(f"{name} is a generator: return a list, or use num_returns")
    if inspect.iscoroutinefunction(target):
        raise UsageError(f"{name} is a coroutine function: make it a method of a class, whose actor can await")
    return FedFunction(TaskBody(target, name, {}), None, 1, parameters_of(target))


def kill(actor: FedActor) -> None:
    """End an actor at once. Calls of it that have not finished fail with ACTOR_DIED.

    Args:
        actor: The actor's handle; every party kills it, and its own party does.

    Raises:
        UsageError: This is not an actor of the current job.
    """
    job = current_job()
    if not isinstance(actor, FedActor):
        raise UsageError(f"fed.kill takes an actor, not {type(actor).__name__}")
    if actor._job is not job:
        raise UsageError(f"{actor!r} belongs to an earlier job")
    job.kill(actor._actor, actor._party)


def _results(made: tuple[FedObject[Any], ...]) -> Any:
    if len(made) == 1:
        return made[0]
    return list(made) if made else None


def _party_name(party: object) -> str:
    if not isinstance(party, str):
        raise UsageError(f"a party is named by a string, not by {type(party).__name__}")
    return party


def _require_party(job: Job, party: str | None, name: str) -> str:
    if party is None:
        raise UsageError(f"{name} is bound to no party: call {name}.party(...).remote(...)")
    job.check_party(party)
    return party


def _taken_returns(options: Mapping[str, Any], returns: int) -> tuple[int, dict[str, Any]]:
    """``num_returns``, which is ours and not Ray's, and the other options."""
    rest = dict(options)
    given = rest.pop("num_returns", returns)
    return 1 if given is None else given, rest


def _kind(target: object) -> str:
    """What something is that cannot be federated, and what to do about it."""
    kind = type(target)
    if any(base.__module__.partition(".")[0] == "ray" for base in kind.__mro__):
        return "what @ray.remote made of it: leave that out, @fed.remote does the same"
    if isinstance(target, str):
        return f"str: bind what it makes to a party with .party({target!r})"
    wrapped = callable(target) or hasattr(kind, "__get__")
    return f"{kind.__name__}: write a function that calls it" if wrapped else kind.__name__
