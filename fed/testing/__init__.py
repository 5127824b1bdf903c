"""Public test harness: run all parties of a federated program in one process, in milliseconds, without Ray."""

from fed.testing.fault_run import Injection
from fed.testing.faults import Fault, FaultPlan
from fed.testing.simulation import Simulation, simulate

__all__ = ["Fault", "FaultPlan", "Injection", "Simulation", "simulate"]
