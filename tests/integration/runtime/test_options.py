"""Every option of Ray that is accepted does what it says on real Ray, and every other is refused where it is given."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.util.scheduling_strategies import In, NodeAffinitySchedulingStrategy, NodeLabelSchedulingStrategy

import fed
from fed.runtime.contract import ActorBody, Runtime
from fed.runtime.options import ACTOR, METHOD, TASK, Options
from fed.testing import simulate
from tests.support.runtimes import call, ray_runtime, running, task, value_of


@pytest.fixture(scope="module")
def runtime(ray_cluster: object) -> Iterator[Runtime]:
    for begun, _ in running(ray_runtime()):
        yield begun


def context() -> Any:
    return ray.get_runtime_context()


def of_task(runtime: Runtime, code: Callable[..., Any], *values: Any, returns: int = 1, **options: Any) -> Any:
    return value_of(runtime, runtime.submit(task(code, **options), call(*values, returns=returns)))


class Probe:
    """An actor that tells what it is."""

    def resources(self) -> Any:
        return ray.get_runtime_context().get_assigned_resources()

    def node(self) -> str:
        return str(ray.get_runtime_context().get_node_id())

    def name(self) -> str:
        return str(ray.get_runtime_context().get_actor_name())

    def call_name(self) -> str:
        return str(ray.get_runtime_context().get_task_name())

    def variable(self) -> str | None:
        return os.environ.get("TEST_OPTION")

    def two(self) -> tuple[int, int]:
        return 1, 2

    def crash_once(self, path: Path) -> str:
        return crash_once(path)

    def raise_once(self, path: Path) -> str:
        return raise_once(path)

    def meet(self, path: Path) -> bool:
        """Whether another call of this method comes while this one runs."""
        if not hasattr(self, "barrier"):
            self.barrier = threading.Barrier(2)
        return self.barrier.wait(30) >= 0


def of_actor(runtime: Runtime, method: str, *values: Any, given: Any = None, returns: int = 1, **options: Any) -> Any:
    actor, _ = runtime.create(ActorBody(Probe, "Probe", options), call())
    try:
        return value_of(runtime, runtime.call(actor, method, call(*values, returns=returns), given or {}))
    finally:
        runtime.kill(actor)


def crash_once(path: Path) -> str:
    if not path.exists():
        path.touch()
        os._exit(3)
    return "again"


def raise_once(path: Path) -> str:
    if not path.exists():
        path.touch()
        raise KeyError("first")
    return "again"


def here(**_: object) -> dict[str, Any]:
    return {"ray.io/node-id": context().get_node_id()}


def affinity() -> NodeAffinitySchedulingStrategy:
    return NodeAffinitySchedulingStrategy(context().get_node_id(), soft=False)


def meets(runtime: Runtime, path: Path) -> bool:
    actor, _ = runtime.create(ActorBody(Probe, "Probe", {"max_concurrency": 2}), call())
    calls = [runtime.call(actor, "meet", call(path), {}) for _ in range(2)]
    met = [value_of(runtime, submitted) for submitted in calls]
    runtime.kill(actor)
    return met == [True, True]


def runs_in(runtime: Runtime, **options: Any) -> int:
    """In how many workers three runs take place, one after the other."""
    return len({of_task(runtime, os.getpid, **options) for _ in range(3)})


HEAD = {"node:__internal_head__": 0.001}
VARIABLE = {"env_vars": {"TEST_OPTION": "set"}}

CASES: dict[tuple[Options, str], Callable[[Runtime, Path], Any]] = {
    (TASK, "num_cpus"): lambda on, _: of_task(on, Probe().resources, num_cpus=2)["CPU"] == 2,
    (TASK, "memory"): lambda on, _: of_task(on, Probe().resources, memory=10**7)["memory"] > 0,
    (TASK, "resources"): lambda on, _: HEAD.items() <= of_task(on, Probe().resources, resources=HEAD).items(),
    (TASK, "name"): lambda on, _: of_task(on, Probe().call_name, name="mine") == "mine",
    (TASK, "label_selector"): lambda on, _: of_task(on, Probe().node, label_selector=here()) in here().values(),
    (TASK, "runtime_env"): lambda on, _: of_task(on, Probe().variable, runtime_env=VARIABLE) == "set",
    (TASK, "scheduling_strategy"): lambda on, _: (
        of_task(on, Probe().node, scheduling_strategy=affinity())
        == of_task(on, Probe().node, scheduling_strategy="SPREAD")
    ),
    (TASK, "max_calls"): lambda on, _: runs_in(on, max_calls=1) == 3,
    (TASK, "max_retries"): lambda on, path: of_task(on, crash_once, path, max_retries=1) == "again",
    (TASK, "retry_exceptions"): lambda on, path: of_task(on, raise_once, path, retry_exceptions=[KeyError]) == "again",
    (TASK, "num_returns"): lambda on, _: of_task(on, Probe().two, returns=2) == [1, 2],
    (ACTOR, "num_cpus"): lambda on, _: of_actor(on, "resources", num_cpus=2)["CPU"] == 2,
    (ACTOR, "memory"): lambda on, _: of_actor(on, "resources", memory=10**7)["memory"] > 0,
    (ACTOR, "resources"): lambda on, _: HEAD.items() <= of_actor(on, "resources", resources=HEAD).items(),
    (ACTOR, "name"): lambda on, _: of_actor(on, "name", name="mine") == "mine",
    (ACTOR, "label_selector"): lambda on, _: of_actor(on, "node", label_selector=here()) in here().values(),
    (ACTOR, "runtime_env"): lambda on, _: of_actor(on, "variable", runtime_env=VARIABLE) == "set",
    (ACTOR, "scheduling_strategy"): lambda on, _: (
        of_actor(on, "node", scheduling_strategy=affinity()) == of_actor(on, "node", scheduling_strategy="SPREAD")
    ),
    (ACTOR, "max_concurrency"): meets,
    (ACTOR, "max_restarts"): lambda on, path: (
        of_actor(on, "crash_once", path, given={"max_task_retries": -1}, max_restarts=1) == "again"
    ),
    (ACTOR, "max_task_retries"): lambda on, path: (
        of_actor(on, "crash_once", path, max_restarts=1, max_task_retries=-1) == "again"
    ),
    (METHOD, "name"): lambda on, _: of_actor(on, "call_name", given={"name": "mine"}) == "mine",
    (METHOD, "num_returns"): lambda on, _: of_actor(on, "two", returns=2) == [1, 2],
    (METHOD, "max_task_retries"): lambda on, path: (
        of_actor(on, "crash_once", path, given={"max_task_retries": -1}, max_restarts=1) == "again"
    ),
    (METHOD, "retry_exceptions"): lambda on, path: (
        of_actor(on, "raise_once", path, given={"retry_exceptions": True, "max_task_retries": 1}) == "again"
    ),
}
"""All but those of an accelerator."""

ON_ACCELERATORS = {(of, name) for of in (TASK, ACTOR) for name in ("num_gpus", "accelerator_type")}


@pytest.mark.parametrize(("of", "name"), CASES, ids=[f"{of.of} {name}" for of, name in CASES])
def test_an_option_does_what_it_says(runtime: Runtime, tmp_path: Path, of: Options, name: str) -> None:
    assert CASES[of, name](runtime, tmp_path / "began")


def test_every_option_that_is_accepted_has_a_test() -> None:
    accepted = {(of, name) for of in (TASK, ACTOR, METHOD) for name in of.takes}
    assert accepted == {*CASES, *ON_ACCELERATORS}


def test_a_worker_is_kept_unless_it_may_run_the_code_so_often_only(runtime: Runtime) -> None:
    assert runs_in(runtime) == runs_in(runtime, max_calls=0) == runs_in(runtime, max_calls=None) == 1


def test_none_is_rays_own_choice_whatever_the_option(runtime: Runtime) -> None:
    nothing: dict[Options, Any] = {of: dict.fromkeys(of.takes.keys() - {"num_returns"}) for of in (TASK, ACTOR, METHOD)}
    assert of_task(runtime, Probe().two, **nothing[TASK]) == (1, 2)
    assert of_actor(runtime, "two", given=nothing[METHOD], **nothing[ACTOR]) == (1, 2)


WITH_ACCELERATOR = """
import os, ray
from fed.runtime.contract import ActorBody
from tests.support.runtimes import call, ray_runtime, running, task, value_of

class Probe:
    def gpus(self):
        return ray.get_runtime_context().get_accelerator_ids()["GPU"], os.getpid()

ray.init(address="local", num_cpus=2, num_gpus=1, resources={"accelerator_type:T4": 1}, include_dashboard=False)
for runtime, _ in running(ray_runtime()):
    for options in ({"num_gpus": 1}, {"num_gpus": 1, "accelerator_type": "T4"}, {"num_gpus": 1, "max_calls": 0}):
        ran = [value_of(runtime, runtime.submit(task(Probe().gpus, **options), call())) for _ in range(2)]
        actor, _ = runtime.create(ActorBody(Probe, "Probe", {**options, "max_calls": None}), call())
        ran.append(value_of(runtime, runtime.call(actor, "gpus", call(), {})))
        runtime.kill(actor)
        print("gpus", [gpus for gpus, _ in ran], "same worker", ran[0][1] == ran[1][1])
ray.shutdown()
"""


def test_a_task_that_had_a_gpu_leaves_it_to_the_next_one() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", WITH_ACCELERATOR], capture_output=True, text=True, timeout=120, check=False
    )
    lines = [line for line in ran.stdout.splitlines() if line.startswith("gpus")]
    given = "gpus [['0'], ['0'], ['0']] same worker"
    assert lines == [f"{given} False", f"{given} False", f"{given} True"], ran.stderr


def rays_own(of: Options) -> set[str]:
    """The options that the installed Ray has, which it lists when it refuses one."""
    target: Any = Probe if of is ACTOR else crash_once
    with pytest.raises((ValueError, AssertionError)) as refused:
        (ray.method if of is METHOD else ray.remote)(no_such_option=1)(target)
    listed = set(re.findall(r"'(\w+)'", str(refused.value).partition(" are ")[2] or str(refused.value)))
    return listed - {"no_such_option"}


def noted(**options: Any) -> type:
    """A class with a method of these options."""
    method: Any = ray.method(**options)

    class Noted:
        @method  # type: ignore[untyped-decorator]
        def two(self) -> tuple[int, int]:
            return 1, 2

    return Noted


def test_a_strategy_of_ray_that_does_not_hold_is_refused() -> None:
    wrong = NodeLabelSchedulingStrategy(hard={"ray.io/node-id": In("none")})
    with pytest.raises(fed.UsageError, match="for labels give label_selector"):
        TASK.check({"scheduling_strategy": wrong})


@pytest.mark.parametrize("of", [TASK, ACTOR, METHOD], ids=lambda of: str(of.of))
def test_every_option_of_ray_is_accepted_or_refused_by_its_name(of: Options) -> None:
    names = rays_own(of)
    assert len(names) > 5
    for name in names - of.takes.keys():
        with pytest.raises(fed.UsageError, match=f"no option '{name}' for {of.of}: "):
            of.check({name: 1})


def test_what_ray_notes_on_a_method_holds_and_is_overridden_by_options() -> None:
    noting = fed.remote(noted(num_returns=2))

    def main() -> Any:
        with fed.job():
            actor = noting.party("bob").remote()
            one = actor.two.options(num_returns=1).remote()
            return fed.get([*actor.two.remote(), one])

    assert simulate(main, parties=["alice", "bob"])["alice"] == [1, 2, (1, 2)]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"concurrency_group": "io"}, "no option 'concurrency_group' for a method: give the class max_concurrency"),
        ({"retry_exceptions": KeyError}, "retry_exceptions is True, False or a list of exception classes"),
        ({"num_returns": -1}, "num_returns is a whole number from 0, not -1"),
    ],
)
def test_what_ray_notes_on_a_method_is_checked_at_the_decorator(options: dict[str, Any], sentence: str) -> None:
    class Marked:
        def two(self) -> None: ...

    # Ray itself refuses some of them only when the class is made an actor class.
    for name, value in options.items():
        setattr(Marked.two, f"__ray_{name}__", value)
    for target in (Marked, *([] if "num_returns" in options else [noted(**options)])):
        with pytest.raises(fed.UsageError) as refused:
            fed.remote(target)
        assert f"@ray.method of {target.__name__}.two: {sentence}" in str(refused.value)
