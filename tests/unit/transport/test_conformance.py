"""Every transport keeps the contract of transports."""

from tests.support.transports import *  # noqa: F403 - the suite
