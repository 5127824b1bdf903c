"""Federated cross-party tasks on Ray: parties compute together, and hand over results instead of data."""

from fed.api import errors, get, init, job, parties, party, reset, shutdown, statistics
from fed.config import codec
from fed.core.failure import Failure, Kind
from fed.engine.cleanup import FailureReport
from fed.engine.job import JobStatistics
from fed.errors import (
    ConfigError,
    DeadlockError,
    DeliveryError,
    DivergenceError,
    EgressDenied,
    FailureError,
    FedError,
    FedTimeoutError,
    InitError,
    JobAborted,
    JobInterrupted,
    PartyLeftError,
    PartyLostError,
    RemoteError,
    TaskError,
    UsageError,
)
from fed.object import FedObject
from fed.remote import FedActor, FedClass, FedFunction, FedMethod, kill, remote

__all__ = [
    "ConfigError",
    "DeadlockError",
    "DeliveryError",
    "DivergenceError",
    "EgressDenied",
    "Failure",
    "FailureError",
    "FailureReport",
    "FedActor",
    "FedClass",
    "FedError",
    "FedFunction",
    "FedMethod",
    "FedObject",
    "FedTimeoutError",
    "InitError",
    "JobAborted",
    "JobInterrupted",
    "JobStatistics",
    "Kind",
    "PartyLeftError",
    "PartyLostError",
    "RemoteError",
    "TaskError",
    "UsageError",
    "codec",
    "errors",
    "get",
    "init",
    "job",
    "kill",
    "parties",
    "party",
    "remote",
    "reset",
    "shutdown",
    "statistics",
]
