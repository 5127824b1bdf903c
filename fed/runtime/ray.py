"""The Ray runtime: tasks and actors are Ray's, the proxies are two Ray actors.

Public Ray API only. What is relied on was established by experiment and is named where it is used.
"""

from __future__ import annotations

import functools
import inspect
import logging
import socket
import threading
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import ray

from fed.channel import DriverEnd
from fed.config import RAY_ADDRESS_VARIABLE, Config
from fed.errors import ConfigError
from fed.proxy.direct import DirectClients
from fed.proxy.sender import announce
from fed.runtime import worker
from fed.runtime.channels import driver_end
from fed.runtime.cluster import PrivateDirectory, environment_for_workers, init_ray, reason_of, refuse_second_cluster
from fed.runtime.contract import (
    ActorBody,
    Body,
    Call,
    FetchFailed,
    Outcome,
    Proxies,
    Ref,
    Runtime,
    Submission,
    TaskBody,
    UnreadableError,
)
from fed.runtime.faults import fault_of, outcome_of, without_tracebacks
from fed.runtime.pickling import argument_error, code_error, held_error
from fed.runtime.placement import held_by_actors, needs, why_no_room, why_nowhere
from fed.runtime.ray_proxies import RayProxies, build_sender, submission
from fed.serde.receipt import SmallCodec
from fed.transport.contract import Hello, Notice

__all__ = ["RayRuntime"]

logger = logging.getLogger("fed.runtime")

CONNECT_S: Final = 10.0
"""How long the Ray cluster's address may take to answer."""


class RayRuntime(Runtime):
    """Runs one party's tasks on its Ray cluster.

    Args:
        config: The job's options.
        hello: This party's greeting, for the proxies.
    """

    def __init__(self, config: Config, hello: Hello) -> None:
        self._config = config
        self._hello = hello
        self._owns_cluster = False
        self._directory = PrivateDirectory()
        self._channel: DriverEnd | None = None
        self._proxies: RayProxies | None = None
        self._codec = SmallCodec(config.types, config.small_object_bytes)
        # Guards the next two: whatever thread finds that a task is ready submits it.
        self._binding = threading.Lock()
        # Exported once, however often and with whatever options it is called; kept by Ray as long as the job lasts.
        # By code, and by how often a worker may run it, which Ray is told with the code.
        self._exports: dict[tuple[Any, int], Any] = {}
        # Those that live or will, in the order of their creation. An actor lives as long as its handle.
        self._actors: weakref.WeakKeyDictionary[Any, ActorBody] = weakref.WeakKeyDictionary()
        # What some node has room for; to ask for the nodes takes longer than a call.
        self._placeable: set[frozenset[tuple[str, float]]] = set()
        # With the options of a handle, by number of results; forgotten with the handle.
        self._bound: weakref.WeakKeyDictionary[TaskBody, dict[int, Any]] = weakref.WeakKeyDictionary()

    def start(self) -> Proxies:
        """Join or start the cluster, and start the proxy actors."""
        if not ray.is_initialized():
            self._init_ray()
        self._check_placement()
        direct = DirectClients()
        channel = driver_end(self._config)
        try:
            direct.start(channel)
        except OSError as error:
            raise ConfigError(f"cannot make the socket that the proxies connect to: {error}") from error
        self._channel = channel
        self._proxies = RayProxies(self._config, self._hello, channel.address, direct)
        return self._proxies

    def announce(self, notices: Mapping[str, Sequence[Notice]], timeout_s: float) -> None:
        """Tell it from this process, which needs no cluster for that."""
        announce(functools.partial(build_sender, self._config, self._hello), notices, timeout_s)

    def hold(self, value: Any) -> Any:
        """Put it into Ray's object store. A reference of Ray's own is kept by itself."""
        if isinstance(value, ray.ObjectRef):
            return value
        try:
            return ray.put(value)
        except Exception:
            refused = held_error(value, ray.cloudpickle.dumps)
            if refused is None:
                raise
        raise refused

    def hold_code(self, body: Body) -> None:
        """Pickle it."""
        with self._binding:
            self._export(body)

    def submit(self, body: TaskBody, call: Call) -> Submission:
        """Run a Ray task."""
        with self._binding:
            bound = self._bound.setdefault(body, {})
            remote = bound.get(call.shape.returns)
            if remote is None:
                self._check_room(body, ray.exceptions.TaskUnschedulableError)
                options = {**_options(body), "num_returns": call.shape.returns + 1}
                options.pop("max_calls", None)
                remote = bound[call.shape.returns] = self._export(body).options(**options)
        return submission(_submitted(remote.remote, call))

    def create(self, body: ActorBody, call: Call) -> tuple[Any, Ref]:
        """Make a Ray actor."""
        with self._binding:
            self._check_room(body, ray.exceptions.ActorUnschedulableError)
            exported = self._export(body)
        options = _options(body)
        if options:
            exported = exported.options(**options)
        handle = _submitted(exported.remote, call)
        with self._binding:
            self._actors[handle] = body
        return handle, handle.fed_created.remote()

    def _export(self, body: Body) -> Any:
        max_calls = _max_calls(body)
        exported = self._exports.get((body.code, max_calls))
        if exported is None:
            wrap: Any = _actor_class if isinstance(body, ActorBody) else _task
            wrapped = wrap(body, _Frozen(body.code), self._codec)
            exported = ray.remote(max_calls=max_calls)(wrapped) if max_calls else ray.remote(wrapped)
            self._exports[body.code, max_calls] = exported
        return exported

    def _check_room(self, body: Body, error: Callable[[str], Exception]) -> None:
        strategy = body.options.get("scheduling_strategy")
        if strategy is not None and not isinstance(strategy, str):
            # It names a node or a placement group, and Ray refuses what that has not.
            return
        wanted = needs(body.options)
        key = frozenset(wanted.items())
        if key not in self._placeable:
            problem = why_nowhere(ray.nodes(), wanted)
            if problem is not None:
                raise error(problem)
            self._placeable.add(key)

    def call(self, actor: Any, method: str, call: Call, options: Mapping[str, Any]) -> Submission:
        """Call a method of a Ray actor."""
        given = {name: value for name, value in options.items() if value is not None}
        bound = getattr(actor, method).options(num_returns=call.shape.returns + 1, **given)
        return submission(_submitted(bound.remote, call))

    def kill(self, actor: Any) -> None:
        """Kill a Ray actor."""
        ray.kill(actor)
        with self._binding:
            self._actors.pop(actor, None)

    def held_up(self, submitted: Sequence[tuple[Body, Any]]) -> list[str]:
        """Compare what they take with what the cluster has, less what actors keep."""
        nothing = [""] * len(submitted)
        with self._binding:
            actors = list(self._actors.items())
        if not any(_kept(body) for _, body in actors):
            return nothing
        try:
            total, available = ray.cluster_resources(), ray.available_resources()
        except Exception as error:  # noqa: BLE001 - of a cluster that does not answer
            logger.debug("cannot look up what the cluster has: %s", error)
            return nothing
        texts = []
        for body, made in submitted:
            others = [(kept.name, _kept(kept)) for actor, kept in actors if actor is not made]
            texts.append(held_by_actors(needs(body.options), others, total, available))
        return texts

    def watch(self, ref: Ref, callback: Callable[[Outcome], None]) -> None:
        """Call back on the thread on which Ray resolves futures."""
        ref.future().add_done_callback(lambda future: callback(outcome_of(future)))

    def fetch(self, refs: Iterable[Ref]) -> list[Any]:
        """The values, from Ray's object store."""
        wanted = list(refs)
        with without_tracebacks():
            try:
                values: list[Any] = ray.get(wanted)
                return values
            except Exception:  # noqa: BLE001
                logger.debug("a result cannot be fetched; each is tried by itself, for Ray does not say which")
            return [_fetched(position, ref) for position, ref in enumerate(wanted)]

    def close(self) -> None:
        """End the proxies, and the cluster if it was started here. Idempotent."""
        if self._channel is not None:
            self._channel.close()
        if self._proxies is not None and ray.is_initialized():
            self._proxies.kill()
            self._proxies = None
        if self._owns_cluster:
            self._owns_cluster = False
            try:
                ray.shutdown()
            finally:
                self._directory.remove()

    def _init_ray(self) -> None:
        address = self._config.ray_address or "local"
        if address == "local":
            refuse_second_cluster()
            options: dict[str, Any] = {"include_dashboard": False}
        else:
            variables = environment_for_workers(address)
            options = {"runtime_env": {"env_vars": variables}} if variables else {}
        # Also if it fails: then there are processes to end and a directory to remove.
        self._owns_cluster = True
        try:
            if address == "local":
                self._directory.make()
            _check_reachable(address)
            init_ray(
                address=address,
                namespace=self._config.ray_namespace or f"{self._config.job}-{self._config.party}",
                **options,
            )
        except Exception as error:
            raise ConfigError(
                f"cannot use the Ray cluster at {address!r} (option ray_address, else {RAY_ADDRESS_VARIABLE}): "
                f"{reason_of(error, address)}"
            ) from error

    def _check_placement(self) -> None:
        wanted = self._config.ray_proxy_resources
        if not wanted:
            return
        problem = why_no_room(ray.nodes(), wanted)
        if problem is not None:
            raise ConfigError(problem)


def _check_reachable(address: str) -> None:
    """Fail in seconds where nobody listens; Ray itself tries for minutes, and prints while it does."""
    host, _, port = address.rpartition(":")
    if host and port.isdigit() and "://" not in address:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_S).close()


def _options(body: Body) -> dict[str, Any]:
    """The options that Ray is given; None stands for its own choice, but not with all of them for Ray itself."""
    return {name: value for name, value in body.options.items() if value is not None}


def _max_calls(body: Body) -> int:
    """After how many runs of a function Ray ends the worker; 0 for none.

    As Ray does it for a function that it is given with its options: what a library has taken of a GPU, it gives back
    with the end of its process only.
    """
    if isinstance(body, ActorBody):
        return 0
    given = body.options.get("max_calls")
    return int(given if given is not None else (body.options.get("num_gpus") or 0) > 0)


def _kept(body: ActorBody) -> dict[str, float]:
    """What an actor keeps as long as it lives; where its options ask for nothing, it takes a CPU to begin with only."""
    asked = ("num_cpus", "num_gpus", "resources", "accelerator_type")
    return needs(body.options) if any(body.options.get(name) is not None for name in asked) else {}


class _Frozen:
    """Code as it was when it was pickled. In a worker it is itself again.

    Raises:
        pickle.PicklingError: It cannot be pickled.
    """

    def __init__(self, code: Any) -> None:
        try:
            self._data = ray.cloudpickle.dumps(code)
        except Exception as error:  # noqa: BLE001 - whatever something that it refers to raises
            raise code_error(code, error, ray.cloudpickle.dumps) from None

    def __reduce__(self) -> Any:
        return ray.cloudpickle.loads, (self._data,)


def _task(body: TaskBody, code: Any, codec: SmallCodec) -> Callable[..., Any]:
    def task(shape: bytes, *values: Any) -> Any:
        return worker.run(code, shape, values, codec)

    _name(task, body)
    return task


def _actor_class(body: ActorBody, code: Any, codec: SmallCodec) -> type:
    """A class that holds the user's instance and has a method for each of its public ones.

    Not a subclass: a method of the user's that calls another one must reach that one, not what is built around it.
    """
    label = body.name
    reading = codec.without_receipts()
    # Where other calls may change what one returns, before Ray has taken it, there is no second copy of it.
    used = reading if body.is_concurrent else codec

    def __init__(self: Any, shape: bytes, *values: Any) -> None:  # noqa: N807
        self.failed = None
        try:
            self.instance, _ = worker.run(code, shape, values, reading)
        except Exception as error:  # noqa: BLE001 - kept, and raised by every method
            # An actor whose constructor raises is dead to Ray, which then tells neither class nor cause.
            self.failed = error

    def __repr__(self: Any) -> str:  # noqa: N807
        return label

    def fed_created(self: Any) -> None:
        if self.failed is not None:
            raise self.failed

    members: dict[str, Any] = {"__init__": __init__, "__repr__": __repr__, "fed_created": fed_created}
    for name, member in body.methods().items():
        members[name] = (_coroutine_method if inspect.iscoroutinefunction(member) else _method)(name, used)
    actor = type(label, (), members)
    actor.__module__ = getattr(body.code, "__module__", __name__)
    return actor


def _method(name: str, codec: SmallCodec) -> Callable[..., Any]:
    def method(self: Any, shape: bytes, *values: Any) -> Any:
        if self.failed is not None:
            raise self.failed
        return worker.run(getattr(self.instance, name), shape, values, codec)

    method.__name__ = name
    return method


def _coroutine_method(name: str, codec: SmallCodec) -> Callable[..., Any]:
    async def method(self: Any, shape: bytes, *values: Any) -> Any:
        if self.failed is not None:
            raise self.failed
        return await worker.run_async(getattr(self.instance, name), shape, values, codec)

    method.__name__ = name
    return method


def _name(function: Callable[..., Any], body: TaskBody) -> None:
    """Show the user's name in Ray's tools. Not functools.wraps: Ray would then check the user's signature."""
    function.__name__ = body.name
    function.__qualname__ = getattr(body.code, "__qualname__", body.name)
    function.__module__ = getattr(body.code, "__module__", __name__)


def _fetched(position: int, ref: Ref) -> Any:
    try:
        return ray.get(ref)
    except Exception as error:  # noqa: BLE001 - whatever it is, `fault_of` has a place for it
        fault, cause = fault_of(error)
    if isinstance(cause, UnreadableError):
        fault = cause.as_result
    # Not within the handler: what Ray raised must not be shown as the context.
    raise FetchFailed(position, fault, cause) from cause


def _submitted(remote: Callable[..., Any], call: Call) -> Any:
    """What Ray hands out for a call.

    Raises:
        pickle.PicklingError: An argument cannot be pickled.
        Exception: Whatever else Ray refuses the call with.
    """
    try:
        return remote(call.shape.to_bytes(), *call.values)
    except Exception:
        refused = argument_error(call, ray.cloudpickle.dumps)
        if refused is None:
            raise
    # Ray's own text has many lines.
    raise refused
