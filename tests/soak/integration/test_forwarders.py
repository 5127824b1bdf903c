"""Slow connections, and connections that are reset: nothing is lost, nothing comes twice, nobody is taken for dead."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from fed.config import TLSConfig
from fed.runtime.cluster import LocalCluster
from tests.support.eventually import eventually
from tests.support.forwarders import Forwarders
from tests.support.hosting import ANSWER_S, Host, hosted
from tests.support.networked import PROGRAM, Recorded, environment
from tests.support.profile import times
from tests.support.traffic import Traffic, transferred

pytestmark = pytest.mark.timeout(300)

PARTIES = ("alice", "bob")
OPTIONS = {"lease_s": 5}
TRANSFER_BYTES = 60_000_000


@pytest.fixture(scope="module")
def all_forwarders() -> Iterator[Forwarders]:
    with Forwarders(PARTIES) as one:
        yield one


@pytest.fixture
def forwarders(all_forwarders: Forwarders, record: Recorded) -> Iterator[Forwarders]:
    """Those of all tests in this file, which pass on everything at once until told otherwise."""
    before = all_forwarders.resets
    yield all_forwarders
    all_forwarders.delay_s = 0.0
    record("resets", all_forwarders.resets - before)


@pytest.fixture(scope="module")
def host(
    all_forwarders: Forwarders,
    ray_cluster: LocalCluster,
    credentials: Mapping[str, TLSConfig],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Host]:
    """Two parties in one Ray cluster, since here it is not the network below them that is tampered with."""
    logs = tmp_path_factory.mktemp("logs")

    def environments() -> Mapping[str, Mapping[str, str]]:
        return {
            party: {
                **ray_cluster.environment(),
                **environment("forwarded", party, all_forwarders.addresses(party), credentials),
                "FED_LISTEN": str(all_forwarders.listeners[party]),
                "FED_LOG_DIR": str(logs / party),
            }
            for party in PARTIES
        }

    with hosted(environments, program=PROGRAM) as one:
        yield one


def test_e40_a_reset_connection_loses_nothing(forwarders: Forwarders, host: Host, tmp_path: Path) -> None:
    traffic = Traffic(host, PARTIES, OPTIONS, tmp_path / "stop")
    for _ in range(2):
        assert forwarders.reset_all() > 0
        traffic.wait_for_rounds(1)
    traffic.assert_whole()


def test_e40_connections_that_are_reset_every_second_lose_nothing(
    forwarders: Forwarders, host: Host, tmp_path: Path, record: Recorded
) -> None:
    traffic = Traffic(host, PARTIES, OPTIONS, tmp_path / "stop")
    rounds = traffic.rounds
    for _ in range(times(5, 8, 20)):
        forwarders.reset_all()
        time.sleep(1)
    record("rounds_meanwhile", traffic.rounds - rounds)
    traffic.wait_for_rounds(2)
    traffic.assert_whole()


def test_e40_a_large_transfer_that_is_reset_in_the_middle_arrives_whole(
    forwarders: Forwarders, host: Host, record: Recorded
) -> None:
    playing = host.begin("one_large", OPTIONS, TRANSFER_BYTES, "alice", "bob")
    playing.wait_for("large")
    before = forwarders.passed_on
    for _ in range(3):
        middle = forwarders.passed_on + TRANSFER_BYTES // 3
        assert eventually(lambda middle=middle: forwarders.passed_on > middle, ANSWER_S)  # type: ignore[misc]
        forwarders.reset_all()
    answers = playing.answers()
    right = dict.fromkeys(PARTIES, transferred(TRANSFER_BYTES))
    assert {party: answer.get("value") for party, answer in answers.items()} == right, answers
    record("times_sent", round((forwarders.passed_on - before) / TRANSFER_BYTES, 1))


def test_e39_latency_is_no_silence(forwarders: Forwarders, host: Host, tmp_path: Path, record: Recorded) -> None:
    """100 ms each way, as around half the earth, from the greeting on. No loss, which a forwarder cannot simulate."""
    forwarders.delay_s = 0.1
    began = time.monotonic()
    traffic = Traffic(host, PARTIES, OPTIONS, tmp_path / "stop")
    traffic.wait_for_rounds(times(3, 3, 10))
    # A connection is also found again from so far away.
    forwarders.reset_all()
    traffic.wait_for_rounds(3)
    traffic.assert_whole()
    record("took_s", round(time.monotonic() - began, 1))
