"""Ray's options for functions, classes and methods: which there are, what each takes, what to do in place of others.

They are checked where they are given, in every party, since Ray itself looks at them in one party only, and only when
something is run with them.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import reprlib
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from fed.errors import UsageError

__all__ = ["ACTOR", "METHOD", "TASK", "Options"]


class _Takes(NamedTuple):
    """What an option may be.

    Attributes:
        what: For people.
        fits: Whether a value is that.
    """

    what: str
    fits: Callable[[Any], bool]


@dataclasses.dataclass(frozen=True, eq=False)
class Options:
    """The options of one thing that can be called.

    Attributes:
        of: What that is.
        takes: What each of them may be, or None, which stands for Ray's default.
        instead: What to do in place of some that it does not have.
    """

    of: str
    takes: Mapping[str, _Takes]
    instead: Mapping[str, str]

    def check(self, given: Mapping[str, Any]) -> None:
        """Refuse what there is not.

        Raises:
            UsageError: An option does not exist, or may not be what it is.
        """
        for name, value in given.items():
            takes = self.takes.get(name)
            if takes is None:
                raise UsageError(f"no option {name!r} for {self.of}: {self._hint(name)}")
            if value is not None and not takes.fits(value):
                raise UsageError(f"{name} is {takes.what}, not {reprlib.repr(value)}")

    def _hint(self, name: str) -> str:
        if name in self.instead:
            return self.instead[name]
        near = difflib.get_close_matches(name, sorted(self.takes), n=1)
        return f"did you mean {near[0]!r}?" if near else f"there are {', '.join(sorted(self.takes))}"


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_amount(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < math.inf


def _is_name(value: object) -> bool:
    return isinstance(value, str) and value != ""


def _are_resources(value: object) -> bool:
    return isinstance(value, Mapping) and all(
        _is_name(name) and name not in _OWN_OPTIONS and _is_amount(amount) for name, amount in value.items()
    )


def _are_labels(value: object) -> bool:
    return isinstance(value, Mapping) and all(
        _is_name(label) and isinstance(wanted, str) for label, wanted in value.items()
    )


def _are_exceptions(value: object) -> bool:
    return isinstance(value, bool) or (
        isinstance(value, (list, tuple))
        and all(isinstance(member, type) and issubclass(member, Exception) for member in value)
    )


def _is_strategy(value: object) -> bool:
    if isinstance(value, str):
        return value in ("DEFAULT", "SPREAD")
    # Classes of Ray's, which are not imported here. That of labels Ray itself follows to nodes that do not have them.
    return type(value).__module__.startswith("ray.") and type(value).__name__ != "NodeLabelSchedulingStrategy"


_OWN_OPTIONS: Final = frozenset({"CPU", "GPU", "memory", "object_store_memory"})
_AMOUNT: Final = _Takes("a number from 0", _is_amount)
_NAME: Final = _Takes("a text", _is_name)
_COUNT: Final = _Takes("a whole number from 0", lambda value: _is_whole(value) and value >= 0)
_TIMES: Final = _Takes(
    "a whole number from 0, or -1 for any number of times", lambda value: _is_whole(value) and value >= -1
)
_EXCEPTIONS: Final = _Takes("True, False or a list of exception classes", _are_exceptions)

_EVERYWHERE: Final[Mapping[str, _Takes]] = {
    "accelerator_type": _NAME,
    "label_selector": _Takes("a dict from labels to texts", _are_labels),
    "memory": _AMOUNT,
    "name": _NAME,
    "num_cpus": _AMOUNT,
    "num_gpus": _AMOUNT,
    "resources": _Takes(
        "a dict from names to numbers from 0, in which CPU, GPU and memory have options of their own", _are_resources
    ),
    "runtime_env": _Takes("a dict", lambda value: isinstance(value, Mapping)),
    "scheduling_strategy": _Takes(
        "'DEFAULT', 'SPREAD', a NodeAffinitySchedulingStrategy or a PlacementGroupSchedulingStrategy (for labels give "
        "label_selector)",
        _is_strategy,
    ),
}

_PLACEMENT: Final = "give scheduling_strategy=PlacementGroupSchedulingStrategy(...)"
_GROUPS: Final = "give the class max_concurrency, or make an actor for each group"
_TENSORS: Final = "results go through Ray's object store"
_INSTEAD: Final[Mapping[str, str]] = {
    "concurrency_group": _GROUPS,
    "concurrency_groups": _GROUPS,
    "enable_tensor_transport": _TENSORS,
    "fallback_strategy": "give label_selector",
    "object_store_memory": "Ray reserves none; give memory",
    "placement_group": _PLACEMENT,
    "placement_group_bundle_index": _PLACEMENT,
    "placement_group_capture_child_tasks": _PLACEMENT,
    "tensor_transport": _TENSORS,
}
"""For options that Ray has, and that would do nothing, or harm, behind a federated call."""

_OF_THE_ACTOR: Final = "an actor has it, give it to the class"

TASK: Final = Options(
    "a function",
    {
        **_EVERYWHERE,
        "max_calls": _COUNT,
        "max_retries": _TIMES,
        "num_returns": _COUNT,
        "retry_exceptions": _EXCEPTIONS,
    },
    _INSTEAD,
)

ACTOR: Final = Options(
    "a class",
    {
        **_EVERYWHERE,
        "max_concurrency": _Takes("a whole number from 1", lambda value: _is_whole(value) and value >= 1),
        "max_restarts": _TIMES,
        "max_task_retries": _TIMES,
    },
    {
        **_INSTEAD,
        "allow_out_of_order_execution": "give max_concurrency, or write coroutine methods",
        "get_if_exists": "keep the handle of the actor",
        "lifetime": "an actor lives as long as its job",
        "max_calls": "an actor lives until fed.kill, or as long as its job",
        "max_pending_calls": "call fed.get now and then, which waits",
        "max_retries": "give max_restarts and max_task_retries",
        "namespace": "give the job ray_namespace",
        "num_returns": "give it to a method, actor.method.options(num_returns=...)",
        "retry_exceptions": "give it to a method, actor.method.options(retry_exceptions=...)",
    },
)

METHOD: Final = Options(
    "a method",
    {
        "max_task_retries": _TIMES,
        "name": _NAME,
        "num_returns": _COUNT,
        "retry_exceptions": _EXCEPTIONS,
    },
    {
        **_INSTEAD,
        **dict.fromkeys((*_EVERYWHERE, "max_concurrency", "max_restarts"), _OF_THE_ACTOR),
        "max_retries": "give max_task_retries",
    },
)
