"""Options are checked where they are given, without Ray."""

from __future__ import annotations

from typing import Any

import pytest

import fed
from fed.runtime.options import ACTOR, METHOD, TASK, Options


def function() -> None: ...


class Class:
    def method(self) -> None: ...


@pytest.mark.parametrize(
    ("of", "name", "value"),
    [
        (TASK, "num_cpus", 0.5),
        (TASK, "num_gpus", 0),
        (TASK, "memory", 10**9),
        (TASK, "resources", {"gpu_node": 0.001}),
        (TASK, "scheduling_strategy", "SPREAD"),
        (TASK, "max_retries", -1),
        (TASK, "retry_exceptions", (ValueError, OSError)),
        (TASK, "num_returns", 0),
        (ACTOR, "max_concurrency", 1),
        (ACTOR, "max_restarts", -1),
        (METHOD, "retry_exceptions", True),
    ],
)
def test_what_an_option_may_be(of: Options, name: str, value: Any) -> None:
    of.check({name: value})
    of.check({name: None})


@pytest.mark.parametrize(
    ("of", "name", "value", "sentence"),
    [
        (TASK, "num_cpus", "2", "num_cpus is a number from 0, not '2'"),
        (TASK, "num_cpus", True, "num_cpus is a number from 0, not True"),
        (TASK, "num_gpus", -1, "num_gpus is a number from 0, not -1"),
        (TASK, "memory", float("nan"), "memory is a number from 0, not nan"),
        (TASK, "memory", float("inf"), "memory is a number from 0, not inf"),
        (TASK, "name", "", "name is a text, not ''"),
        (TASK, "resources", {"GPU": 1}, "in which CPU, GPU and memory have options of their own, not {'GPU': 1}"),
        (TASK, "resources", {"far": -1}, "resources is a dict from names to numbers from 0"),
        (TASK, "resources", ["far"], "resources is a dict from names to numbers from 0"),
        (TASK, "runtime_env", "conda", "runtime_env is a dict, not 'conda'"),
        (TASK, "scheduling_strategy", "PACK", "scheduling_strategy is 'DEFAULT', 'SPREAD', a NodeAffinity"),
        (TASK, "scheduling_strategy", object(), "(for labels give label_selector), not <object"),
        (TASK, "label_selector", {"zone": 1}, "label_selector is a dict from labels to texts"),
        (TASK, "retry_exceptions", ValueError, "retry_exceptions is True, False or a list of exception classes, not"),
        (TASK, "retry_exceptions", [KeyboardInterrupt], "a list of exception classes, not"),
        (TASK, "max_retries", -2, "max_retries is a whole number from 0, or -1 for any number of times, not -2"),
        (TASK, "max_calls", 1.5, "max_calls is a whole number from 0, not 1.5"),
        (TASK, "num_returns", "streaming", "num_returns is a whole number from 0, not 'streaming'"),
        (ACTOR, "max_concurrency", 0, "max_concurrency is a whole number from 1, not 0"),
        (ACTOR, "accelerator_type", 4, "accelerator_type is a text, not 4"),
        (METHOD, "num_returns", -1, "num_returns is a whole number from 0, not -1"),
    ],
)
def test_what_an_option_may_not_be_is_said_with_what_it_may(of: Options, name: str, value: Any, sentence: str) -> None:
    with pytest.raises(fed.UsageError) as refused:
        of.check({name: value})
    assert sentence in str(refused.value)


@pytest.mark.parametrize(
    ("of", "name", "sentence"),
    [
        (TASK, "num_cpu", "no option 'num_cpu' for a function: did you mean 'num_cpus'?"),
        (TASK, "placement_group", "give scheduling_strategy=PlacementGroupSchedulingStrategy(...)"),
        (
            TASK,
            "lifetime",
            "no option 'lifetime' for a function: there are accelerator_type, label_selector, max_calls",
        ),
        (ACTOR, "lifetime", "no option 'lifetime' for a class: an actor lives as long as its job"),
        (ACTOR, "concurrency_groups", "give the class max_concurrency, or make an actor for each group"),
        (ACTOR, "max_pending_calls", "call fed.get now and then, which waits"),
        (ACTOR, "max_retries", "give max_restarts and max_task_retries"),
        (ACTOR, "num_returns", "give it to a method, actor.method.options(num_returns=...)"),
        (METHOD, "num_gpus", "no option 'num_gpus' for a method: an actor has it, give it to the class"),
    ],
)
def test_an_option_that_there_is_not_is_refused_with_what_to_do_in_its_place(
    of: Options, name: str, sentence: str
) -> None:
    with pytest.raises(fed.UsageError) as refused:
        of.check({name: 1})
    assert sentence in str(refused.value)


def test_options_are_checked_at_the_decorator_in_both_its_forms_and_at_the_handle() -> None:
    for target in (function, Class):
        anything: Any = target
        for give in (
            lambda target=anything: fed.remote(num_cpus="2")(target),
            lambda target=anything: fed.remote(target, num_cpus="2"),
            lambda target=anything: fed.remote(target).options(num_cpus="2"),
        ):
            with pytest.raises(fed.UsageError, match="num_cpus is a number from 0"):
                give()
