"""All parties on one machine: what they are given, what is shown, how it ends, and that nothing is left."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from fed.testing.simulation import free_addresses
from tests.support.launching import (
    NO_CLUSTER,
    descendants_of,
    environment,
    eventually,
    fed,
    ignored,
    is_gone,
    read_until,
    script,
    session_of,
    started,
    variable_of,
)


def simulate(
    directory: Path, text: str, *arguments: object, parties: str = "alice,bob"
) -> subprocess.CompletedProcess[str]:
    script(directory, text)
    return fed("run", "script.py", "--simulate", parties, *NO_CLUSTER, *arguments, cwd=directory)


def of(party: str, output: str) -> list[str]:
    """What one party wrote."""
    lines = [line.partition(" | ") for line in output.splitlines()]
    return [text for name, _, text in lines if name.strip() == party]


def test_each_party_is_told_who_and_where_it_is(tmp_path: Path) -> None:
    text = """
        import json, os, stat, sys
        environ = {name: text for name, text in os.environ.items() if name.startswith("FED_")}
        mode = stat.S_IMODE(os.stat(environ["FED_TLS_KEY"]).st_mode)
        print(json.dumps([sys.argv, sys.path[0], os.getsid(0) == os.getpid(), mode, environ]))
    """
    result = simulate(tmp_path, text, "--", "data.csv", "--epochs", "3", parties="alice, bob,carol")
    assert (result.returncode, result.stderr) == (0, "")
    told = {}
    for party in ("alice", "bob", "carol"):
        [line] = of(party, result.stdout)
        argv, path, leads_session, mode, told[party] = json.loads(line)
        assert argv == ["script.py", "data.csv", "--epochs", "3"]
        assert path == str(tmp_path)
        assert leads_session
        assert mode == stat.S_IRUSR | stat.S_IWUSR
    for party, environ in told.items():
        assert environ["FED_PARTY"] == party
        assert environ["FED_RUN_JOB"] == "script"
        assert environ["FED_ADDRESSES"] == told["alice"]["FED_ADDRESSES"]
        assert f"{party}={environ['FED_LISTEN']}" in environ["FED_ADDRESSES"].split(",")
        assert environ["FED_RAY_ADDRESS"] == "127.0.0.1:1"
        assert re.fullmatch(rf"script-{party}-[0-9a-f]+", environ["FED_RAY_NAMESPACE"])
        assert not Path(environ["FED_TLS_KEY"]).exists()
        assert not Path(environ["FED_TLS_CA"]).parent.exists()
        assert not {"FED_RUN_STATUS_FD", "FED_RUN_LIFELINE_FD", "FED_RUN_DIRECTORY"} & environ.keys()
    for name in ("FED_LISTEN", "FED_RAY_NAMESPACE", "FED_TLS_CERT", "FED_TLS_KEY"):
        assert len({environ[name] for environ in told.values()}) == 3


def test_what_a_party_is_told_makes_a_whole_configuration(tmp_path: Path) -> None:
    text = """
        import os
        from pathlib import Path
        from fed.config import load
        config = load({}, os.environ, Path.cwd())
        print(config.job, config.party, config.parties, config.tls is not None, config.init_timeout_s,
              dict(config.ray_proxy_resources))
    """
    (tmp_path / "fed.toml").write_text(
        "party = 'zoe'\nlisten = 'elsewhere:1'\n[ray]\nproxy_resources = {gate = 1}\n[options]\ninit_timeout_s = 17\n"
    )
    result = simulate(tmp_path, text)
    assert of("bob", result.stdout) == ["script bob ('alice', 'bob') True 17 {}"]


def test_a_server_can_have_the_port_that_was_kept_for_it(tmp_path: Path) -> None:
    text = """
        import os, socket
        host, port = os.environ["FED_LISTEN"].split(":")
        server = socket.create_server((host, int(port)))  # it sets SO_REUSEADDR
        socket.create_connection((host, int(port)))
        print("served", server.accept()[0] is not None)
    """
    result = simulate(tmp_path, text)
    assert of("alice", result.stdout) == of("bob", result.stdout) == ["served True"]


def test_one_party_alone_can_be_simulated(tmp_path: Path) -> None:
    assert simulate(tmp_path, "print('hello')", parties="solo").stdout == "solo | hello\n"


def test_lines_keep_their_stream_and_the_last_needs_no_end(tmp_path: Path) -> None:
    text = r"""
        import os, sys
        print("out", os.environ["FED_PARTY"])
        print("err", file=sys.stderr)
        for percent in range(0, 101):
            sys.stderr.write(f"\r{percent}%")
        sys.stderr.write("\n")
        os.write(1, "caf\u00e9 \ud7ff".encode()[:-1])
    """
    result = simulate(tmp_path, text, parties="al,carol")
    assert result.stdout.splitlines()[0] in ("al    | out al", "carol | out carol")
    assert of("al", result.stdout) == ["out al", "caf\u00e9 \ufffd"]
    progress = of("carol", result.stderr)
    assert progress[0] == "err"
    assert progress[-1] == "100%"
    assert len(progress) <= 4
    assert "\x1b" not in result.stdout + result.stderr


def test_output_comes_while_the_script_runs(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    script(tmp_path, "print('before'); open('fifo').read(); print('after')")
    with started("run", "script.py", "--simulate", "solo", *NO_CLUSTER, cwd=tmp_path) as process:
        assert process.stdout is not None
        assert read_until(process.stdout, "before") == ["solo | before\n"]
        (tmp_path / "fifo").write_text("")
        assert read_until(process.stdout, "after") == ["solo | after\n"]
        assert process.wait(60) == 0


@pytest.mark.parametrize(
    ("ending", "code", "cause", "how"),
    [
        (
            "raise ValueError('bad')",
            1,
            "ValueError in the program of party 'bob'",
            "failed here (exit 1): its own traceback is above",
        ),
        ("sys.exit(7)", 7, "the program of party 'bob' called sys.exit", "left here (exit 7)"),
        (
            "os.kill(os.getpid(), signal.SIGKILL)",
            137,
            "party 'bob' died of signal 9 (SIGKILL), said nothing",
            "died of signal 9 (SIGKILL), said nothing",
        ),
        ("from fed.errors import ConfigError; raise ConfigError('no')", 2, "no", "failed here (exit 2)"),
    ],
)
def test_the_code_of_the_party_that_failed_is_the_commands(
    ending: str, code: int, cause: str, how: str, tmp_path: Path, logs: Path
) -> None:
    text = f"import os, signal, sys\nif os.environ['FED_PARTY'] == 'bob': {ending}"
    result = simulate(tmp_path, text, parties="alice,bob,carol")
    assert result.returncode == code
    assert result.stderr.splitlines()[-5:] == [
        "fed: 1 of 3 parties failed, it began in bob",
        f"  root cause    {cause}",
        f"  bob           {how}",
        f"                log: {logs / 'bob.log'}",
        "  alice, carol  ended well",
    ]


def test_of_several_failures_the_first_in_time_counts(tmp_path: Path, logs: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    text = """
        import os, sys
        if os.environ["FED_PARTY"] == "bob":
            held = os.open("fifo", os.O_WRONLY)  # closed by the system, after everything else of bob's
            os._exit(5)
        with open("fifo") as stream:
            stream.read()
        sys.exit(3)
    """
    result = simulate(tmp_path, text)
    assert result.returncode == 5
    assert result.stderr.splitlines()[-5:-1] == [
        "fed: 2 of 2 parties failed, it began in bob",
        "  root cause  party 'bob' died with exit code 5, said nothing",
        "  bob         died with exit code 5, said nothing",
        f"              log: {logs / 'bob.log'}",
    ]
    assert "alice       its program called sys.exit (exit 3)" in result.stderr


REPORTS = """
    import logging, os, sys
    def report(event, **detail):
        logging.getLogger("fed").info(event, extra={"fed_event": event, "fed_detail": detail})
    def meet():
        # Nobody goes on before both have come.
        mine, other = ("a", "b") if os.environ["FED_PARTY"] == "alice" else ("b", "a")
        if mine == "a":
            open(mine, "w").close(), open(other).close()
        else:
            open(other).close(), open(mine, "w").close()
"""


def test_the_others_are_ended_when_their_grace_is_over(tmp_path: Path, logs: Path) -> None:
    text = """
        import os, signal, sys
        if os.environ["FED_PARTY"] == "bob":
            sys.exit(3)
        signal.pause()
    """
    result = simulate(tmp_path, text, "--grace", "0")
    assert result.returncode == 3
    assert result.stderr.splitlines() == [
        "fed: ending alice, still running 0 s after bob failed",
        "fed: 1 of 2 parties failed, it began in bob",
        "  root cause  the program of party 'bob' called sys.exit",
        "  bob         left here (exit 3)",
        f"              log: {logs / 'bob.log'}",
        "  alice       still running, told to end (exit 130, SIGINT)",
    ]


def test_what_a_party_fails_of_when_it_is_told_to_end_is_not_the_root(tmp_path: Path) -> None:
    text = (
        REPORTS
        + """
    import signal, time
    if os.environ["FED_PARTY"] == "bob":
        os._exit(4)
    try:
        signal.pause()
    except KeyboardInterrupt:
        report("failed", root="KeyboardInterrupt at party 'alice'", src_party="alice", error_id="alice/1/1")
        raise
    """
    )
    result = simulate(tmp_path, text, "--grace", "0")
    assert result.returncode == 4
    assert "  root cause  party 'bob' died with exit code 4, said nothing\n" in result.stderr


def test_who_is_waited_for_and_where_it_began_are_shown(tmp_path: Path, logs: Path) -> None:
    os.mkfifo(tmp_path / "a")
    os.mkfifo(tmp_path / "b")
    text = (
        REPORTS
        + """
    if os.environ["FED_PARTY"] == "alice":
        report("waiting", **{"for": ["bob"]})
    meet()
    report("joined")
    report("unheard-of", x=object())
    os.write(1, b"joined\\n")
    meet()
    if os.environ["FED_PARTY"] == "alice":
        report("failed", root="ValueError in task #3 train: bad", src_party="alice", error_id="alice/1/1")
        meet()
        raise ValueError("bad")
    report("failed", root="ValueError in task #3 train", src_party="alice", error_id="alice/1/1")
    meet()
    sys.exit(9)
    """
    )
    result = simulate(tmp_path, text)
    assert result.returncode == 1
    lines = result.stderr.splitlines()
    # Each party has pipes of its own: that bob has joined may be read before that alice waits for him, and both after
    # what she wrote.
    assert {"fed: waiting for bob", "fed: connecting the parties"}.intersection(lines)
    assert lines[-5:] == [
        "fed: 2 of 2 parties failed, it began in alice",
        "  root cause  ValueError in task #3 train: bad",
        "  alice       failed here (exit 1): its own traceback is above",
        f"              log: {logs / 'alice.log'}",
        "  bob         followed (exit 9): told by alice",
    ]
    assert of("alice", result.stdout) == of("bob", result.stdout) == ["joined"]


FAMILY = """
    import os, signal, subprocess, sys
    child = subprocess.Popen(["sleep", "1000"])
    {disposition}
    print("pids", os.getpid(), child.pid, flush=True)
    while True:
        signal.pause()
"""


def pids(lines: list[str]) -> list[int]:
    return [int(pid) for line in lines if "pids" in line for pid in line.split("pids")[1].split()]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interruption_ends_everything(number: signal.Signals, tmp_path: Path) -> None:
    script(tmp_path, FAMILY.format(disposition=""))
    with started("run", "script.py", "--simulate", "alice,bob", *NO_CLUSTER, cwd=tmp_path) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        recorded = pids(read_until(process.stdout, "alice | pids", "bob   | pids"))
        assert len(recorded) == 4
        directory = Path(variable_of(recorded[0], "FED_TLS_KEY")).parent
        assert directory.exists()
        os.kill(process.pid, number)
        assert process.wait(60) == 130
        assert process.stderr.read() == "fed: interrupted, ending alice, bob\n"
        assert all(is_gone(pid) for pid in recorded)
        assert not session_of(process.pid)
        assert not directory.exists()


def test_what_was_ignored_stays_ignored_and_sigterm_ends_everything(tmp_path: Path) -> None:
    for party in ("alice", "bob"):
        os.mkfifo(tmp_path / party)
    text = """
        import os, signal
        print("hangup ignored", signal.getsignal(signal.SIGHUP) is signal.SIG_IGN, flush=True)
        open(os.environ["FED_PARTY"]).read()
        os.kill(os.getpid(), signal.SIGINT)
        try:
            print("still here", flush=True)
            while True:
                pass
        finally:
            print("cleaned up", flush=True)
    """
    script(tmp_path, text)
    with (
        ignored(signal.SIGHUP, signal.SIGINT),
        started("run", "script.py", "--simulate", "alice,bob", *NO_CLUSTER, cwd=tmp_path) as process,
    ):
        assert process.stdout is not None
        assert process.stderr is not None
        read_until(process.stdout, "alice | hangup ignored True", "bob   | hangup ignored True")
        os.kill(process.pid, signal.SIGHUP)
        os.kill(process.pid, signal.SIGINT)
        for party in ("alice", "bob"):
            (tmp_path / party).write_text("")
        read_until(process.stdout, "alice | still here", "bob   | still here")
        os.kill(process.pid, signal.SIGTERM)
        read_until(process.stdout, "alice | cleaned up", "bob   | cleaned up")
        assert process.wait(60) == 130
        assert process.stderr.read() == "fed: interrupted, ending alice, bob\n"


def test_a_second_interruption_kills_at_once(tmp_path: Path) -> None:
    ignore = "[signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)]"
    script(tmp_path, FAMILY.format(disposition=ignore))
    with started("run", "script.py", "--simulate", "alice,bob", *NO_CLUSTER, cwd=tmp_path) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        recorded = pids(read_until(process.stdout, "alice | pids", "bob   | pids"))
        os.kill(process.pid, signal.SIGINT)
        read_until(process.stderr, "interrupted, ending alice, bob")
        os.kill(process.pid, signal.SIGINT)
        assert process.wait(60) == 130
        assert process.stderr.read() == "fed: interrupted again, killing alice, bob\n"
        assert all(is_gone(pid) for pid in recorded)


def test_nothing_outlives_a_killed_command(tmp_path: Path) -> None:
    ignore = "[signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)]"
    script(tmp_path, FAMILY.format(disposition=ignore))
    with started("run", "script.py", "--simulate", "alice,bob", *NO_CLUSTER, cwd=tmp_path) as process:
        assert process.stdout is not None
        recorded = pids(read_until(process.stdout, "alice | pids", "bob   | pids"))
        directory = Path(variable_of(recorded[0], "FED_TLS_KEY")).parent
        process.kill()
        process.wait(60)
        eventually(lambda: all(is_gone(pid) for pid in recorded))
        assert not directory.exists()


def test_what_a_script_leaves_behind_is_ended_with_it(tmp_path: Path) -> None:
    text = """
        import subprocess
        print("pids", subprocess.Popen(["sleep", "1000"]).pid)
    """
    result = simulate(tmp_path, text)
    assert result.returncode == 0
    recorded = pids(result.stdout.splitlines())
    assert len(recorded) == 2
    eventually(lambda: all(is_gone(pid) for pid in recorded))


def test_something_that_escaped_with_the_output_does_not_hold_up_the_end(tmp_path: Path) -> None:
    text = """
        import subprocess
        print("pids", subprocess.Popen(["sleep", "1000"], start_new_session=True).pid)
    """
    script(tmp_path, text)
    with started("run", "script.py", "--simulate", "solo", *NO_CLUSTER, cwd=tmp_path) as process:
        assert process.stdout is not None
        [pid] = pids(read_until(process.stdout, "pids"))
        try:
            assert process.wait(60) == 0
        finally:
            os.kill(pid, signal.SIGKILL)


def test_a_reader_that_leaves_ends_the_simulation(tmp_path: Path) -> None:
    script(tmp_path, "while True: print('more')")
    with started("run", "script.py", "--simulate", "alice,bob", *NO_CLUSTER, cwd=tmp_path) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(60) == 130
        assert "Broken" not in process.stderr.read()


@pytest.mark.parametrize("variables", [{}, {"NO_COLOR": "1"}], ids=["colours", "no colours"])
def test_a_terminal_gets_colours_and_a_spinner(variables: dict[str, str], tmp_path: Path) -> None:
    for party in ("alice", "bob"):
        os.mkfifo(tmp_path / party)
    text = """
        import logging, os
        def report(event, **detail):
            logging.getLogger("fed").info(event, extra={"fed_event": event, "fed_detail": detail})
        party = os.environ["FED_PARTY"]
        if party == "alice":
            report("waiting", **{"for": ["bob"]})
        open(party).read()
        report("joined")
        print("hello")
    """
    script(tmp_path, text)
    command = [sys.executable, "-m", "fed.cli", "run", "script.py", "--simulate", "alice,bob", *NO_CLUSTER]
    ours, theirs = pty.openpty()
    env = environment(TERM="xterm", **variables)
    with subprocess.Popen(
        command, cwd=tmp_path, env=env, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
    ) as process:
        os.close(theirs)
        shown = ""
        while data := _read_terminal(ours):
            shown += data
            if "waiting for bob" in shown:
                for party in ("alice", "bob"):
                    if (tmp_path / party).exists():
                        (tmp_path / party).write_text("")
                        (tmp_path / party).unlink()
        os.close(ours)
        assert process.wait(60) == 0
    assert shown.count("hello") == 2
    assert ("\x1b[36malice | \x1b[0mhello" in shown) is (not variables)
    assert ("alice | hello" in shown) is bool(variables)
    # The cursor, which a spinner hides, is back.
    assert shown.rfind("\x1b[?25h") > shown.rfind("\x1b[?25l") >= 0


def _read_terminal(descriptor: int) -> str:
    try:
        return os.read(descriptor, 65536).decode(errors="replace")
    except OSError:
        # Linux reports the end of a terminal so.
        return ""


def test_a_simulation_on_a_cluster_of_its_own_leaves_nothing(tmp_path: Path) -> None:
    text = """
        import os, ray
        ray.init(
            address=os.environ["FED_RAY_ADDRESS"],
            namespace=os.environ["FED_RAY_NAMESPACE"],
            log_to_driver=False,
            logging_level="ERROR",
        )
        who = ray.remote(lambda: (os.getppid(), ray.get_runtime_context().namespace))
        parent, namespace = ray.get(who.remote())
        print("pids", parent, flush=True)
        assert namespace == os.environ["FED_RAY_NAMESPACE"]
        print("cpus", ray.cluster_resources()["CPU"], flush=True)
    """
    script(tmp_path, text)
    result = fed("run", "script.py", "--simulate", "alice,bob", "--cpus", "3", cwd=tmp_path)
    assert result.returncode == 0
    assert result.stderr == "fed: starting a local Ray cluster\n"
    recorded = pids(result.stdout.splitlines())
    assert len(recorded) == 2
    assert of("alice", result.stdout)[-1] == "cpus 3.0"
    eventually(lambda: all(is_gone(pid) for pid in recorded))


SETS = """
    import os
    os.environ["SET_BY_THE_SCRIPT"] = "x"
    os.environ["INHERITED"] = "changed"
    import fed

    @fed.remote
    def look():
        return {name: os.environ.get(name) for name in ("SET_BY_THE_SCRIPT", "INHERITED", "KEPT")}

    with fed.job():
        print("seen", list(fed.get(look.party(fed.parties()[0]).remote()).values()))
"""


@pytest.mark.parametrize("simulated", [True, False])
def test_what_a_script_sets_in_its_environment_reaches_its_tasks(simulated: bool, tmp_path: Path) -> None:
    script(tmp_path, SETS)
    env = environment(INHERITED="as it was", KEPT="y", FED_ADDRESSES=f"alice={free_addresses(1)[0]}")
    how = ("--simulate", "alice") if simulated else ("--party", "alice")
    result = fed("run", "script.py", *how, cwd=tmp_path, env=env)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1].removeprefix("alice | ") == "seen ['x', 'changed', 'y']"


UNREADABLE = """
    import fed

    class Model:
        def __setstate__(self, state):
            raise RuntimeError("no float8 here")

        def __getstate__(self):
            return {}

    @fed.remote
    def train():
        return Model()

    @fed.remote
    def use(model):
        return 1

    with fed.job(on_error="isolate"):
        model = train.party("alice").remote()
        for asked in (use.party("bob").remote(model), model):
            try:
                fed.get(asked)
            except fed.DeliveryError as error:
                print(error)
"""


def test_of_a_result_that_cannot_be_unpickled_nothing_is_written_but_what_is_raised(tmp_path: Path) -> None:
    script(tmp_path, UNREADABLE)
    result = fed("run", "script.py", "--simulate", "alice,bob", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    reason = "it cannot be unpickled in another process (RuntimeError)"
    assert of("bob", result.stdout) == [f"could not deliver the result of #0 train of party 'alice': {reason}"] * 2
    assert of("alice", result.stdout) == [f"could not deliver the result of #0 train: {reason}: no float8 here"] * 2
    assert "Traceback" not in result.stdout + result.stderr


def test_a_module_and_its_tasks_import_their_neighbours(tmp_path: Path) -> None:
    text = """
        import fed
        from .neighbour import name

        @fed.remote
        def who():
            from .neighbour import name as same
            from shop import neighbour
            return [name, same, neighbour.name]

        with fed.job():
            print("seen", fed.get(who.party("bob").remote()))
    """
    (tmp_path / "shop").mkdir()
    script(tmp_path / "shop", "", "__init__.py")
    script(tmp_path / "shop", "name = 'next door'", "neighbour.py")
    script(tmp_path / "shop", text, "train.py")
    result = fed("run", "-m", "shop.train", "--simulate", "alice,bob", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert of("alice", result.stdout) == of("bob", result.stdout) == [f"seen {['next door'] * 3}"]


FAILS = """
    import fed

    @fed.remote
    def train():
        raise ValueError("canary-4711")

    with fed.job():
        fed.get(train.party("alice").remote())
"""


def test_a_failure_is_told_at_length_at_its_source_and_in_a_line_at_a_peer(tmp_path: Path, logs: Path) -> None:
    """Of other kinds of failures `test_failures_shown` has each word that is shown."""
    script(tmp_path, FAILS)
    result = fed("run", "script.py", "--simulate", "alice,bob", cwd=tmp_path)
    assert result.returncode == 1
    alice, bob = of("alice", result.stdout + result.stderr), of("bob", result.stdout + result.stderr)
    told = "ValueError in task #0 train at party 'alice'"
    for text in ("in train", "ValueError: canary-4711", f"fed: error: {told} [TASK, "):
        assert any(text in line for line in alice), alice
    assert not [line for line in alice + bob if "raylet" in line or "ray.exceptions" in line]
    assert bob[0].startswith(f"fed: error: {told} [TASK, script.py:")
    # What bob is told to look for is in alice's log, with the details, and in no other place.
    assert len(bob) == 2
    assert " in the log of party 'alice' under alice/" in bob[1]
    assert "canary-4711" in (logs / "alice.log").read_text().partition(f"failure {bob[1].rpartition(' ')[2]}")[2]
    assert "canary" not in "".join(bob) + (logs / "bob.log").read_text()
    block = result.stderr.splitlines()[-5:]
    assert block[0] == "fed: 2 of 2 parties failed, it began in alice"
    assert block[1].startswith(f"  root cause  {told}")
    assert block[2].startswith("  alice       failed here (exit 1)")
    assert block[3:] == [f"              log: {logs / 'alice.log'}", "  bob         followed (exit 1): told by alice"]


def test_an_interruption_ends_the_cluster_too(tmp_path: Path) -> None:
    text = """
        import os, ray, signal
        ray.init(address=os.environ["FED_RAY_ADDRESS"], log_to_driver=False, logging_level="ERROR")
        print("worker", ray.get(ray.remote(lambda: os.getpid()).remote()), flush=True)
        signal.pause()
    """
    script(tmp_path, text)
    with started("run", "script.py", "--simulate", "alice,bob", cwd=tmp_path) as process:
        assert process.stdout is not None
        read_until(process.stdout, "alice | worker", "bob   | worker")
        recorded = descendants_of(process.pid)
        assert len(recorded) > 4
        os.kill(process.pid, signal.SIGINT)
        assert process.wait(60) == 130
        eventually(lambda: all(is_gone(pid) for pid in recorded))
        assert not session_of(process.pid)


def test_ports_are_not_taken_while_they_are_kept() -> None:
    from fed.cli.simulation import _reserved_addresses

    with _reserved_addresses(("alice", "bob")) as addresses:
        ports = {address.port for address in addresses.values()}
        assert len(ports) == 2
        with socket.socket() as other, pytest.raises(OSError, match="in use"):
            other.bind(("127.0.0.1", next(iter(ports))))
