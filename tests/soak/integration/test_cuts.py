"""Cut networks: what is shorter than the lease loses nothing, and what is longer ends the job in every party."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.support.eventually import eventually
from tests.support.hosting import ANSWER_S, Host
from tests.support.namespaces import Network, NotAvailable
from tests.support.networked import PARTIES, Recorded
from tests.support.profile import times
from tests.support.traffic import Answers, Traffic, transferred

pytestmark = pytest.mark.timeout(300)

LEASE_S = 4.0
SLACK_S = 4.0
"""What is needed beside the lease to tell a program, on a machine that is very busy."""
LEAVING_S = 8.0
"""How long a party may take to leave a job that has failed: those who are lost cannot be told goodbye."""
FLAPS = times(6, 6, 18)
SHARES = times(2, 2, 4)
"""How many of the shares of a lease are tried for which a network is cut."""
FLAP_S = 0.3
TRANSFER_BYTES = 100_000_000


class Cut(NamedTuple):
    """A way to cut a network, and to heal it."""

    name: str
    make: Callable[[Network], None]
    heal: Callable[[Network], None]


CUTS = (
    Cut("both ways", lambda network: network.cut("alice", "bob"), lambda network: network.heal("alice", "bob")),
    Cut(
        "alice to bob",
        lambda network: network.cut("alice", "bob", one_way=True),
        lambda network: network.heal("alice", "bob", one_way=True),
    ),
    Cut(
        "bob to alice",
        lambda network: network.cut("bob", "alice", one_way=True),
        lambda network: network.heal("bob", "alice", one_way=True),
    ),
    Cut("link of bob", lambda network: network.unplug("bob"), lambda network: network.plug("bob")),
)
each_cut = pytest.mark.parametrize("cut", CUTS, ids=[cut.name for cut in CUTS])


def options(network: Network, *parties: str, lease_s: float = LEASE_S) -> dict[str, Any]:
    """Of a job between these parties."""
    return {"addresses": {party: str(network.address(party)) for party in parties}, "lease_s": lease_s}


REPORTED = r"( \(reported by \w+\))?"
"""By another one, where that missed it first."""


def assert_lost(answers: Answers, cut_at: float, record: Recorded, lease_s: float = LEASE_S) -> None:
    """Every party has learnt that one is lost, within the lease, and has left its job promptly."""
    for party, answer in answers.items():
        assert answer["error"] == "PartyLostError", answers
        lost = rf"party '{answer['party']}' was lost{REPORTED}: nothing was heard of it for "
        assert re.match(lost, answer["text"]), answer
        # The handler is told what the program is told, and once.
        assert [report["text"] for report in answer["reports"]] == [answer["text"]]
        assert answer["left_at"] - answer["raised_at"] < LEAVING_S, (party, answer)
    noticed = [answer["raised_at"] - cut_at for answer in answers.values()]
    left = [answer["left_at"] - cut_at for answer in answers.values()]
    record("noticed_s", noticed)
    record("left_s", left)
    record("lost", {party: answer["party"] for party, answer in answers.items()})
    # What was heard last may have been heard a ping before the cut.
    assert min(noticed) > lease_s / 2
    assert max(noticed) < lease_s + SLACK_S


@each_cut
def test_e40_cuts_for_less_than_the_lease_lose_nothing(
    network: Network, host: Host, tmp_path: Path, cut: Cut, record: Recorded
) -> None:
    traffic = Traffic(host, PARTIES, options(network, *PARTIES), tmp_path / "stop")
    resumed = []
    for fraction in (0.6, 0.2, 0.4, 0.7)[:SHARES]:
        cut.make(network)
        time.sleep(fraction * LEASE_S)
        cut.heal(network)
        healed_at = time.monotonic()
        traffic.wait_for_rounds(2)
        resumed.append(time.monotonic() - healed_at)
    traffic.assert_whole()
    record("resumed_s", resumed)


@each_cut
@pytest.mark.parametrize("parties", [PARTIES[:2], PARTIES], ids=["two", "three"])
def test_e40_a_cut_for_longer_than_the_lease_ends_the_job_everywhere(
    network: Network, host: Host, tmp_path: Path, cut: Cut, parties: Sequence[str], record: Recorded
) -> None:
    """Carol, where she is there, sees both of them; and who is lost is for those to say who miss somebody."""
    traffic = Traffic(host, parties, options(network, *parties), tmp_path / "stop")
    cut_at = time.monotonic()
    cut.make(network)
    answers = traffic.answers()
    assert_lost(answers, cut_at, record)
    lost = {party: answer["party"] for party, answer in answers.items()}
    if parties == PARTIES[:2]:
        # None can know on whose side the cut is.
        assert lost == {"alice": "bob", "bob": "alice"}
    elif cut.name == "link of bob":
        assert (lost["alice"], lost["carol"]) == ("bob", "bob")
        assert lost["bob"] in ("alice", "carol")
    else:
        # Carol passes on what she hears, and so those whom she reaches may say the same, even of themselves.
        assert set(lost.values()) <= {"alice", "bob"}
        assert lost["carol"] in (lost["alice"], lost["bob"])


@each_cut
def test_e40_a_link_that_flaps_loses_nothing(
    network: Network, host: Host, tmp_path: Path, cut: Cut, record: Recorded
) -> None:
    # As much is lost as comes through, so a greeting takes several goes; on a busy machine that is some seconds.
    traffic = Traffic(host, PARTIES, options(network, *PARTIES, lease_s=2 * LEASE_S), tmp_path / "stop")
    rounds = traffic.rounds
    for _ in range(FLAPS):
        cut.make(network)
        time.sleep(FLAP_S)
        cut.heal(network)
        time.sleep(FLAP_S)
    record("rounds_meanwhile", traffic.rounds - rounds)
    traffic.wait_for_rounds(2)
    traffic.assert_whole()


@pytest.mark.parametrize("cut", CUTS[:3], ids=[cut.name for cut in CUTS[:3]])
def test_e40_a_large_transfer_that_is_cut_in_the_middle_arrives_whole(
    network: Network, host: Host, cut: Cut, record: Recorded
) -> None:
    try:
        # About three seconds for all of it.
        network.limit("bob", 250)
    except NotAvailable as reason:
        pytest.skip(f"the kernel cannot hold a link back (sch_tbf): {reason}")
    playing = host.begin("one_large", options(network, *PARTIES), TRANSFER_BYTES, "alice", "bob")
    playing.wait_for("large", ("alice", "bob"))
    for share in (0.2, 0.5):
        before = network.passed_on("bob")
        _wait_for_passage(network, "bob", before + int(share * TRANSFER_BYTES))
        cut.make(network)
        time.sleep(0.4 * LEASE_S)
        cut.heal(network)
    answers = playing.answers()
    right = dict.fromkeys(PARTIES, transferred(TRANSFER_BYTES))
    assert {party: answer.get("value") for party, answer in answers.items()} == right, answers
    record("passed_on", network.passed_on("bob"))


def _wait_for_passage(network: Network, party: str, nbytes: int) -> None:
    assert eventually(lambda: network.passed_on(party) > nbytes, ANSWER_S), "the transfer has stopped"


def test_e41_a_party_that_comes_back_past_its_lease_is_told_so(
    network: Network, host: Host, tmp_path: Path, record: Recorded
) -> None:
    """Bob has more patience than alice: when the network is whole again, he alone believes in the job."""
    given = {party: options(network, "alice", "bob", lease_s=lease) for party, lease in (("alice", 3), ("bob", 12))}
    playing = host.begin_each("unread", {**given, "carol": given["alice"]}, str(tmp_path / "never"))
    playing.wait_for("waiting", ("alice", "bob"))
    cut_at = time.monotonic()
    network.cut("alice", "bob")
    playing.wait_for("failed", ("alice",))
    network.heal("alice", "bob")
    healed_at = time.monotonic()
    playing.wait_for("failed", ("bob",))
    for party in ("alice", "bob"):
        playing.tell(party)
    answers = playing.answers()
    record("noticed_s", [answers["alice"]["raised_at"] - cut_at])
    record("told_s", answers["bob"]["raised_at"] - healed_at)
    record("texts", {party: answers[party].get("text") for party in ("alice", "bob")})
    assert [answers[party]["error"] for party in ("alice", "bob")] == ["PartyLostError"] * 2
    assert answers["alice"]["party"] == "bob"
    assert re.search(r"nothing was heard of it for [3-7]\.", answers["alice"]["text"])
    assert "given party 'bob' up" in answers["bob"]["text"]


def test_e40_programs_that_catch_nothing_end_after_a_cut(
    network: Network, host: Host, tmp_path: Path, record: Recorded
) -> None:
    given = options(network, *PARTIES)
    playing = host.begin("to_the_end", given, str(tmp_path / "never"))
    playing.wait_for("waiting")
    cut_at = time.monotonic()
    network.cut("alice", "bob")
    codes = host.ends()
    record("ended_s", time.monotonic() - cut_at)
    output = {party: driver.lines[-4:] for party, driver in host.drivers.items()}
    host.close()
    assert codes == dict.fromkeys(PARTIES, 1), output
    for lines in output.values():
        assert any(re.search(rf"was lost{REPORTED}: nothing was heard of it", line) for line in lines), output


def test_e39_latency_and_loss_are_no_silence(network: Network, host: Host, tmp_path: Path, record: Recorded) -> None:
    """200 ms from everyone to everyone else, and one packet of a hundred lost."""
    try:
        for party in PARTIES:
            network.impair(party, delay_ms=200, loss_percent=1.0)
    except NotAvailable as reason:
        pytest.skip(f"the kernel has no netem (sch_netem), see test_forwarders for latency without loss: {reason}")
    traffic = Traffic(host, PARTIES, options(network, *PARTIES, lease_s=10), tmp_path / "stop")
    traffic.wait_for_rounds(5)
    traffic.assert_whole()
