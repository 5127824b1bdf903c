"""The shortest Ray program with a result: see benchmarks/workloads/start.py."""

from __future__ import annotations

from fed.runtime.cluster import prepare_environment

# As quiet as the other program's cluster, and with a token as it has. Ray reads this when it is first imported.
prepare_environment(own_cluster=True)

import ray  # noqa: E402


def add(*parts: int) -> int:
    """The result."""
    return sum(parts)


ray.init(address="local", include_dashboard=False, log_to_driver=False, logging_level="ERROR")
print(f"the total is {ray.get(ray.remote(add).remote(14, 14, 14))}", flush=True)
ray.shutdown()
