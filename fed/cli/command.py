"""The commands and their options: checks what was asked for, before anything is started."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NoReturn

import click

# Only what is quick: the rest, Ray above all, is imported by the command that needs it, so that help and usage
# errors come at once.
from fed.cli.program import Program, find_module, find_script, refuse_hidden_packages
from fed.cli.reports import RUN_LOG_DIR_VARIABLE
from fed.config import (
    DEFAULT_JOB_VARIABLE,
    LOG_DIR_VARIABLE,
    RAY_ADDRESS_VARIABLE,
    check_party_name,
    check_ray_address,
    gather,
)
from fed.errors import ConfigError, FedError

if TYPE_CHECKING:
    from fed.cli.terminal import Terminal
    from fed.runtime.cluster import LocalCluster

__all__ = ["main"]

_INTERRUPTED = 130
LOCAL = "local"
"""The address by which Ray starts a cluster."""
_EPILOG = """\b
Exit codes:
    0  every party ended well
    1  the program failed (simulated: the code of the party where the failure began)
    2  wrong usage or configuration, or a party did not join
  130  interrupted
  128 and a signal's number: a party was ended by that signal
"""


class _Refusal(click.ClickException):
    """What was asked for cannot be done."""

    exit_code = 2

    def show(self, file: IO[Any] | None = None) -> None:
        click.echo(f"fed: error: {self.format_message()}", file=file, err=file is None)


class _RunCommand(click.Command):
    """Tells where the script's own options go."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            message = f"{error.format_message()} The script's own options go after --."
            raise click.UsageError(message, ctx) from None


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="fedray", prog_name="fed")
def main() -> None:
    """Compute together with other parties, and hand over nothing but results."""


@main.command(cls=_RunCommand, epilog=_EPILOG)
@click.argument("script")
@click.argument("arguments", nargs=-1, metavar="[-- ARGUMENTS]...", type=click.UNPROCESSED)
@click.option("-m", "as_module", is_flag=True, help="SCRIPT is the name of a module or package, as in python -m.")
@click.option("--simulate", metavar="NAMES", help="Run all parties here; their names, separated by commas.")
@click.option("--party", metavar="NAME", help="Run this party only, as in production.")
@click.option(
    "--config",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Options file.  [default: $FED_CONFIG, or fed.toml here if there is one]",
)
@click.option(
    "--log-dir",
    metavar="DIRECTORY",
    type=click.Path(path_type=Path),
    help="Where each party's log goes.  [default: $FED_LOG_DIR, or fedray/SCRIPT in ~/.local/state]",
)
@click.option(
    "--grace",
    metavar="SECONDS",
    type=click.FloatRange(min=0),
    help="When one simulated party has failed: how long the others may take to end.  [default: 30]",
)
@click.option(
    "--cpus",
    metavar="NUMBER",
    type=click.IntRange(min=1),
    help="CPUs of the simulation's Ray cluster.  [default: this machine's, but two per party at least]",
)
@click.option(
    "--ray-address",
    metavar="ADDRESS",
    help="Simulate on this Ray cluster; local starts one.  [default: $RAY_ADDRESS, else local]",
)
def run(
    script: str,
    as_module: bool,
    arguments: tuple[str, ...],
    simulate: str | None,
    party: str | None,
    config: Path | None,
    log_dir: Path | None,
    grace: float | None,
    cpus: int | None,
    ray_address: str | None,
) -> None:
    """Run SCRIPT for one party, or simulate all parties on this machine.

    \b
    fed run train.py --simulate alice,bob,carol -- --epochs 3
    fed run train.py --party alice
    fed run -m package.train --party alice

    A simulation needs nothing else: it starts a Ray cluster, makes certificates for TLS, runs the script once per
    party, shows each party's output under its name, and leaves nothing behind. Progress bars appear as a line every few
    seconds.

    With --party, the script joins the other parties: their addresses and this party's credentials come from the
    options file, the environment (FED_...) or the script. With neither option, the party's name does too.
    """  # noqa: D301 - click wants the character itself
    if simulate is not None and party is not None:
        raise click.UsageError("--simulate and --party exclude one another: either all parties run here, or one does")
    for name, value in (("--grace", grace), ("--cpus", cpus), ("--ray-address", ray_address)):
        if value is not None and simulate is None:
            raise click.UsageError(f"{name} concerns simulations only: use it with --simulate")
    try:
        program = find_module(script) if as_module else find_script(script)
        refuse_hidden_packages(dict.fromkeys((program.directory, str(Path.cwd()))))
        environ = _environment(program, config, log_dir)
        if simulate is None:
            _run_party(program, arguments, party, environ)
        parties = _parse_parties(simulate)
        gather({}, environ, Path.cwd())
        terminal = _terminal(parties)
        cluster, discard = _cluster(ray_address, cpus, len(parties), terminal)
        grace_s = 30.0 if grace is None else grace
        sys.exit(_simulate(program, arguments, parties, environ, grace_s, terminal, cluster, discard))
    except FedError as error:
        raise _Refusal(str(error)) from None
    except KeyboardInterrupt:
        # Before there is anything to end.
        sys.exit(_INTERRUPTED)


def _environment(program: Program, config: Path | None, log_dir: Path | None) -> dict[str, str]:
    environ = dict(os.environ)
    # Under the name by which the command talks to its drivers: it is no option of the job's.
    asked = environ.pop(LOG_DIR_VARIABLE, "")
    if log_dir is not None or asked:
        environ[RUN_LOG_DIR_VARIABLE] = str((log_dir or Path(asked)).absolute())
    # The weakest of all names for the job: one in the file, in FED_JOB or in the script itself counts more.
    environ[DEFAULT_JOB_VARIABLE] = program.job
    if config is not None:
        environ["FED_CONFIG"] = str(config.absolute())
    return environ


def _parse_parties(text: str) -> tuple[str, ...]:
    parties = tuple(check_party_name(name.strip(), "--simulate") for name in text.split(","))
    for number, name in enumerate(parties):
        if name in parties[:number]:
            raise ConfigError(f"--simulate: party {name!r} occurs twice")
    return parties


def _run_party(program: Program, arguments: Sequence[str], party: str | None, environ: dict[str, str]) -> NoReturn:
    given = gather({"party": party}, environ, Path.cwd())
    if "party" not in given:
        raise click.UsageError(
            "which party? Give --party NAME, set FED_PARTY, or write party in fed.toml; or give --simulate NAMES"
        )
    if "addresses" in given and given["party"] not in given["addresses"]:
        parties = ", ".join(sorted(given["addresses"]))
        raise ConfigError(f"party {given['party']!r} is unknown: the parties are {parties}")
    environ["FED_PARTY"] = given["party"]
    command = _driver_command(program, arguments)
    # In place of this process, so that signals, the terminal and the exit code are the script's own.
    os.execve(command[0], command, environ)  # noqa: S606 - the user's own script, as the user asked


def _driver_command(program: Program, arguments: Sequence[str]) -> list[str]:
    # By its file: with -m Python would look for all that the driver itself imports in the current directory first.
    return [sys.executable, str(Path(__file__).with_name("driver.py")), *program.arguments, *arguments]


def _terminal(parties: Sequence[str]) -> Terminal:
    from fed.cli.terminal import Terminal

    return Terminal(parties, sys.stdout, sys.stderr)


def _cluster(
    address: str | None, cpus: int | None, parties: int, terminal: Terminal
) -> tuple[AbstractContextManager[Mapping[str, str]], Callable[[], None]]:
    """What a simulation runs on, which gives the variables by which a driver joins it; and what removes its files."""
    where = "--ray-address" if address is not None else RAY_ADDRESS_VARIABLE
    address = address if address is not None else os.environ.get(RAY_ADDRESS_VARIABLE) or LOCAL
    if check_ray_address(address, where) == LOCAL:
        from fed.runtime.cluster import LocalCluster

        cluster = LocalCluster(num_cpus=cpus or max(os.cpu_count() or 1, 2 * parties))
        return _started(cluster, terminal), cluster.discard
    if cpus is not None:
        raise click.UsageError(
            f"--cpus and {where} exclude one another: the cluster at {address} has the CPUs it has; "
            f"--ray-address {LOCAL} starts another one"
        )
    if where == RAY_ADDRESS_VARIABLE:
        terminal.say(f"on the Ray cluster at {address} ({where})")
    return contextlib.nullcontext({"FED_RAY_ADDRESS": address}), lambda: None


def _simulate(
    program: Program,
    arguments: Sequence[str],
    parties: Sequence[str],
    environ: Mapping[str, str],
    grace_s: float,
    terminal: Terminal,
    cluster: AbstractContextManager[Mapping[str, str]],
    discard: Callable[[], None],
) -> int:
    from fed.cli.simulation import simulate

    code = simulate(
        _driver_command(program, arguments),
        parties,
        job=environ[DEFAULT_JOB_VARIABLE],
        environ=environ,
        cluster=cluster,
        discard=discard,
        terminal=terminal,
        grace_s=grace_s,
    )
    for stream in (sys.stdout, sys.stderr):
        _drop_unread(stream)
    return code


def _drop_unread(stream: IO[str]) -> None:
    """Forget what a reader that has left did not take; else Python fails to flush it at exit and changes the code."""
    try:
        stream.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


@contextlib.contextmanager
def _started(cluster: LocalCluster, terminal: Terminal) -> Iterator[Mapping[str, str]]:
    terminal.wait("starting a local Ray cluster")
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(cluster)
        finally:
            terminal.stop_waiting()
        yield cluster.environment()
