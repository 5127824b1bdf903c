"""A network for tests whose parties are on machines of their own, as far as the kernel's network can tell.

::

    ┌─ namespace of alice ─┐   ┌──── namespace of the router ────┐   ┌── namespace of bob ──┐
    │ lo   eth0 198.18.1.2 ├───┤ p1 198.18.1.1    198.18.2.1 p2  ├───┤ 198.18.2.2 eth0   lo │
    └──────────────────────┘   └─────────────────────────────────┘   └──────────────────────┘

Everything between two parties passes the router, and there it is cut: a rule that sends packets of one to the other
into a black hole. So nobody is told: no reset, no ICMP, no link that goes down. What is sent is gone, as with a
firewall that forgot a connection, or a cable that was cut behind the next switch. That one direction can be cut
alone is what a rule is better for than a link.

The addresses are those that RFC 2544 sets aside for tests of networks. They exist in these namespaces only.

All names begin with ``fed-`` and the id of the process that made them, so what a killed run left behind is told from
what is in use, and removed by the next one.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from fed.config import Address
from tests.support.eventually import eventually

__all__ = ["Network", "NotAvailable", "missing"]

PORT: Final = 7000
"""Where every party listens: each has all ports for itself."""

EVERYTHING: Final = "198.18.0.0/15"
PREFIX: Final = "fed-"
END_S: Final = 10.0

_serials = itertools.count()


class NotAvailable(Exception):
    """This system cannot do it; the text says what it lacks."""


class Network:
    """One namespace for each party, and a router between them. Close it: namespaces outlive the process.

    Args:
        parties: Their names.

    Raises:
        NotAvailable: The system has no network namespaces, or not for this user.

    Attributes:
        cuts: How many cuts there have been.
    """

    def __init__(self, parties: Sequence[str]) -> None:
        if shutil.which("ip") is None:
            raise NotAvailable("there is no ip command (Debian: iproute2)")
        if os.geteuid() != 0:
            raise NotAvailable("only root may make network namespaces")
        remove_leftovers()
        self.cuts = 0
        self._name = f"{PREFIX}{os.getpid()}-{next(_serials)}"
        self._router = f"{self._name}-router"
        self._places = {party: place for place, party in enumerate(parties, start=1)}
        self._rules: set[tuple[str, str]] = set()
        self._unplugged: set[str] = set()
        self._made: list[str] = []
        try:
            self._make()
        except BaseException:
            self.close()
            raise

    def address(self, party: str) -> Address:
        """Where a party listens."""
        return Address(self._host(party), PORT)

    def command(self, party: str) -> tuple[str, ...]:
        """What to put before a command for it to run where a party is."""
        return ("ip", "netns", "exec", self._namespace(party))

    def cut(self, party: str, peer: str, *, one_way: bool = False) -> None:
        """Lose what a party sends to a peer from now on; and what the peer sends to it, unless it is `one_way`."""
        ways = {(party, peer)} if one_way else {(party, peer), (peer, party)}
        self._change_rules("add", ways - self._rules)
        self._rules |= ways
        self.cuts += 1

    def heal(self, party: str, peer: str, *, one_way: bool = False) -> None:
        """Lose no more of what a party sends to a peer, and of what the peer sends to it, unless it is `one_way`."""
        ways = {(party, peer)} if one_way else {(party, peer), (peer, party)}
        self._change_rules("del", ways & self._rules)
        self._rules -= ways

    def unplug(self, party: str) -> None:
        """Take a party's link down: it sees no carrier, and whoever sends to it is told by the router."""
        self._unplugged.add(party)
        _ip("-n", self._router, "link", "set", self._link(party), "down")
        self.cuts += 1

    def plug(self, party: str) -> None:
        """Take a party's link up again."""
        self._unplugged.discard(party)
        _ip("-n", self._router, "link", "set", self._link(party), "up")

    def restore(self) -> None:
        """Heal all cuts, and lift all limits."""
        self._change_rules("del", self._rules)
        self._rules.clear()
        for party in list(self._unplugged):
            self.plug(party)
        for party in self._places:
            # There may be none, and that cannot be asked for.
            with contextlib.suppress(NotAvailable):
                self._shape("del", party)

    def limit(self, party: str, mbit_per_s: int) -> None:
        """Pass on no more than so much of what goes to a party.

        Raises:
            NotAvailable: The kernel cannot do it.
        """
        self._shape("replace", party, "tbf", "rate", f"{mbit_per_s}mbit", "burst", "128kb", "latency", "100ms")

    def impair(self, party: str, delay_ms: int, loss_percent: float) -> None:
        """Delay what goes to a party, and lose some of it.

        Raises:
            NotAvailable: The kernel cannot do it.
        """
        self._shape("replace", party, "netem", "delay", f"{delay_ms}ms", "loss", f"{loss_percent}%")

    def passed_on(self, party: str) -> int:
        """How many bytes have gone to a party."""
        links = json.loads(_ip("-n", self._router, "-j", "-s", "link", "show", self._link(party)))
        return int(links[0]["stats64"]["tx"]["bytes"])

    def close(self) -> None:
        """Kill what still runs in the namespaces, and remove them. Idempotent."""
        while self._made:
            _remove(self._made.pop())

    def __enter__(self) -> Network:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _make(self) -> None:
        self._add(self._router)
        router = ("ip", "netns", "exec", self._router, "sh", "-c")
        # Whoever checks where packets come from asks for the way back, and that may be cut.
        settings = "echo 1 > ip_forward; for one in conf/all conf/default; do echo 0 > $one/rp_filter; done"
        _run(*router, f"cd /proc/sys/net/ipv4 && {settings}")
        for party in self._places:
            namespace, link = self._namespace(party), self._link(party)
            gateway = f"198.18.{self._places[party]}.1"
            self._add(namespace)
            _ip("-n", self._router, "link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", namespace)
            _ip("-n", self._router, "address", "add", f"{gateway}/24", "dev", link)
            _ip("-n", self._router, "link", "set", link, "up")
            _ip("-n", namespace, "address", "add", f"{self._host(party)}/24", "dev", "eth0")
            _ip("-n", namespace, "link", "set", "eth0", "up")
            # Nothing but the other parties is anywhere: what wants to go elsewhere is told so at once.
            _ip("-n", namespace, "route", "add", EVERYTHING, "via", gateway)
            # Newer kernels ask every second whether somebody is there. Older ones, which have no such setting, wait
            # twice as long each time, and that is the worse of the two.
            setting = "/proc/sys/net/ipv4/tcp_syn_linear_timeouts"
            _run(*self.command(party), "sh", "-c", f"if [ -e {setting} ]; then echo 0 > {setting}; fi")

    def _add(self, namespace: str) -> None:
        _ip("netns", "add", namespace)
        self._made.append(namespace)
        _ip("-n", namespace, "link", "set", "lo", "up")

    def _change_rules(self, change: str, ways: set[tuple[str, str]]) -> None:
        # In one go, so that no direction is cut for longer than the other.
        lines = [
            f"rule {change} from {self._host(source)} to {self._host(target)} blackhole" for source, target in ways
        ]
        if lines:
            _ip("-n", self._router, "-batch", "-", stdin="\n".join(lines))

    def _shape(self, change: str, party: str, *how: str) -> None:
        if shutil.which("tc") is None:
            raise NotAvailable("there is no tc command (Debian: iproute2)")
        _run("tc", "-n", self._router, "qdisc", change, "dev", self._link(party), "root", *how)

    def _host(self, party: str) -> str:
        return f"198.18.{self._places[party]}.2"

    def _link(self, party: str) -> str:
        return f"p{self._places[party]}"

    def _namespace(self, party: str) -> str:
        return f"{self._name}-{party}"


def missing() -> str | None:
    """What this system lacks for networks of this kind, or None: they can be made."""
    try:
        with Network(["one", "two"]) as network:
            network.cut("one", "two", one_way=True)
    except NotAvailable as reason:
        return str(reason)
    return None


def remove_leftovers() -> None:
    """Remove what was made by processes that are gone."""
    for name in _namespaces():
        owner = name.removeprefix(PREFIX).partition("-")[0]
        if name.startswith(PREFIX) and owner.isdecimal() and not Path(f"/proc/{owner}").exists():
            _remove(name)


def _namespaces() -> list[str]:
    return [line.split()[0] for line in _ip("netns", "list").splitlines() if line]


def _remove(namespace: str) -> None:
    def pids() -> list[int]:
        return [int(pid) for pid in _ip("netns", "pids", namespace).split()]

    def none_left() -> bool:
        found = pids()
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return not found

    # They may start others while they are being killed.
    eventually(none_left, END_S)
    _ip("netns", "delete", namespace)


def _ip(*arguments: str, stdin: str = "") -> str:
    return _run("ip", *arguments, stdin=stdin)


def _run(*command: str, stdin: str = "") -> str:
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        complaint = " ".join((done.stderr or done.stdout).split())
        raise NotAvailable(f"`{' '.join(command)}` failed: {complaint}")
    return done.stdout
