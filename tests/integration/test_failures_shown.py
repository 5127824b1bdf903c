"""The section of docs/errors.md on the ten most likely failures: every program is run, and prints what is shown."""

from __future__ import annotations

import dataclasses
import difflib
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from pathlib import Path

import pytest

from fed.runtime.cluster import LocalCluster
from fed.testing.simulation import free_addresses
from fed.transport.certificates import Authority, write_credentials
from tests.support.eventually import eventually
from tests.support.launching import environment

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "errors.md"
PROGRAMS = ROOT / "tests" / "support" / "failures"
TITLE = "## The ten most likely failures, and what each party prints\n"
PARTIES = ("alice", "bob")
DEADLINE_S = 100.0

WAITING = re.compile(r"fed: (waiting for|connecting) .*")
"""Who comes first is chance, and on a terminal it is not a line at all."""
RAYS_OWN = re.compile(r"\[[-0-9]+ [:,0-9]+ E \d+ \d+\] task_manager\.cc:\d+: Failed to push error to driver")
"""Ray's library in C++ says so on a busy machine, of a driver that has ended meanwhile."""

VARYING = (
    (re.compile(r"(?<![\w.])/(?:[^\s/]+/)+"), ".../"),
    (re.compile(r"\b(alice|bob)/[0-9a-f]{16}/"), r"\1/.../"),
    (re.compile(r"\b127\.0\.0\.1:\d+"), "127.0.0.1:..."),
    # Either of two may come to it first.
    (re.compile(r"party '(alice|bob)' found that"), "party 'alice' found that"),
)
"""Directories, the middle of a failure's id, ports."""


@dataclasses.dataclass(frozen=True)
class Shown:
    """A block of the section: commands, each with what it prints.

    Attributes:
        program: The file that they run.
        number: Which of the program's blocks it is.
        commands: The arguments of ``fed``.
        lines: The whole text.
    """

    program: str
    number: int
    commands: tuple[tuple[str, ...], ...]
    lines: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.program}-{self.number}"


def section() -> str:
    _, _, rest = PAGE.read_text(encoding="utf-8").partition(TITLE)
    return re.split(r"^## ", rest, maxsplit=1, flags=re.MULTILINE)[0]


def entries() -> list[tuple[str, str]]:
    """Title and text of each entry."""
    parts = re.split(r"^### (.*)\n", section(), flags=re.MULTILINE)[1:]
    return list(zip(parts[::2], parts[1::2], strict=True))


def program_of(text: str) -> str:
    [name] = re.findall(r"\]\(\.\./tests/support/failures/([\w.]+)\)", text)
    return str(name)


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def all_shown() -> list[Shown]:
    return [
        Shown(
            program_of(text),
            number,
            tuple(tuple(line.split()) for line in re.findall(r"^\$ fed (.*)$", block, re.MULTILINE)),
            tuple(block.splitlines()),
        )
        for _, text in entries()
        for number, block in enumerate(blocks(text, "console"), 1)
    ]


def test_there_are_ten_and_each_has_a_program_that_it_quotes() -> None:
    found = entries()
    assert [title.partition(". ")[0] for title, _ in found] == [str(number) for number in range(1, 11)]
    programs = [program_of(text) for _, text in found]
    assert programs == sorted(path.name for path in PROGRAMS.glob("*.py"))
    for number, (program, (_, text)) in enumerate(zip(programs, found, strict=True), 1):
        assert program.startswith(f"{number:02}_")
        source = (PROGRAMS / program).read_text(encoding="utf-8")
        assert len(source.splitlines()) <= 30
        unindented = re.sub(r"^ +", "", source, flags=re.MULTILINE)
        for quoted in blocks(text, "py"):
            assert re.sub(r"^ +", "", quoted, flags=re.MULTILINE) in unindented, f"{program} has no {quoted}"
    for shown in all_shown():
        assert shown.commands
        for command in shown.commands:
            assert command[:2] == ("run", shown.program)
            assert command[2:] in [("--simulate", "alice,bob"), ("--party", "alice"), ("--party", "bob")]


@pytest.fixture
def machines(tmp_path: Path) -> Path:
    """A directory for each party, with what it needs to join, and every program in each and above them."""
    authority = Authority()
    addresses = dict(zip(PARTIES, free_addresses(len(PARTIES)), strict=True))
    for party in PARTIES:
        write_credentials(tmp_path / party, [party], authority=authority)
        lines = [
            'job = "visits"',
            "[tls]",
            'ca = "ca.pem"',
            'cert = "{party}.cert.pem"',
            'key = "{party}.key.pem"',
            "[parties]",
            *[f'{name} = "{address}"' for name, address in addresses.items()],
        ]
        (tmp_path / party / "fed.toml").write_text("\n".join(lines), encoding="utf-8")
    for program in PROGRAMS.glob("*.py"):
        for directory in (tmp_path, *(tmp_path / party for party in PARTIES)):
            shutil.copy(program, directory)
    return tmp_path


@contextmanager
def certificate_of_alice(machines: Path) -> Iterator[None]:
    for kind in ("cert", "key"):
        shutil.copy(machines / "alice" / f"alice.{kind}.pem", machines / "bob" / f"bob.{kind}.pem")
    yield


@contextmanager
def another_authority(machines: Path) -> Iterator[None]:
    write_credentials(machines / "bob", ["bob"])
    yield


@contextmanager
def a_process_that_listens(machines: Path) -> Iterator[None]:
    options = (machines / "alice" / "fed.toml").read_text(encoding="utf-8")
    [(host, port)] = re.findall(r'^alice = "(.*):(\d+)"$', options, re.MULTILINE)
    with socket.create_server((host, int(port))):
        yield


PREPARED: Mapping[str, Callable[[Path], AbstractContextManager[None]]] = {
    "09_wrong_certificate.py-1": certificate_of_alice,
    "09_wrong_certificate.py-2": another_authority,
    "10_port_taken.py-1": a_process_that_listens,
}


@dataclasses.dataclass(frozen=True)
class Running:
    """A command, and the files that hold what it prints."""

    process: subprocess.Popen[bytes]
    outputs: tuple[Path, Path]

    @property
    def text(self) -> str:
        return "".join(path.read_text(encoding="utf-8") for path in self.outputs)

    def comes_to_wait(self) -> None:
        """Wait until it waits for another party, or has ended."""
        assert eventually(lambda: "fed: waiting for " in self.text or self.process.poll() is not None, DEADLINE_S)


@contextmanager
def started(arguments: Sequence[str], directory: Path, env: Mapping[str, str]) -> Iterator[Running]:
    outputs = (directory / "stdout", directory / "stderr")
    with outputs[0].open("wb") as stdout, outputs[1].open("wb") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", "fed.cli", *arguments],
            cwd=directory,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
        )
    try:
        yield Running(process, outputs)
    finally:
        # It takes the drivers that it started with it.
        process.kill()
        process.wait()


def printed(running: Running, *, simulated: bool) -> list[str]:
    """What a command prints, as it is shown: first what the parties print, by party, then what the command does."""
    running.process.wait(DEADLINE_S)
    lines = running.text.splitlines()
    lines = [line for line in lines if not RAYS_OWN.search(line)]
    if simulated:
        lines = [line for line in lines if not WAITING.fullmatch(line)]
        lines.sort(key=lambda line: [*PARTIES, line.partition(" ")[0]].index(line.partition(" ")[0]))
    for varies, shown in VARYING:
        lines = [varies.sub(shown, line) for line in lines]
    return lines


@pytest.mark.timeout(180)
@pytest.mark.parametrize("shown", all_shown(), ids=str)
def test_the_program_prints_what_is_shown(shown: Shown, machines: Path, ray_cluster: LocalCluster) -> None:
    env = environment(**ray_cluster.environment(), FED_LOG_DIR=str(machines / "logs"))
    running: list[tuple[tuple[str, ...], Running]] = []
    with ExitStack() as stack:
        stack.enter_context(PREPARED.get(str(shown), nullcontext)(machines))
        for command in shown.commands:
            if "--simulate" in command:
                process = started([*command, "--ray-address", ray_cluster.address], machines, env)
            else:
                process = started(command, machines / command[-1], env)
            running.append((command, stack.enter_context(process)))
            if command != shown.commands[-1]:
                # Who comes second finds the first one waiting: what is told to whom depends on it.
                running[-1][1].comes_to_wait()
        lines: list[str] = []
        for command, run in running:
            lines += [f"$ fed {' '.join(command)}", *printed(run, simulated="--simulate" in command)]
            assert run.process.returncode in (1, 2)
    difference = list(difflib.unified_diff(shown.lines, lines, "docs/errors.md", "printed", n=99, lineterm=""))
    assert not difference, "\n".join(["what is printed is not what is shown", *difference])
