"""One party in production: the script runs as under Python, and its end says what a person can act on."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.launching import environment, fed, fed_by_its_name, fed_here, ignored, read_until, script, started


def test_a_script_finds_itself_as_under_python(tmp_path: Path) -> None:
    text = """
        import os, sys
        import neighbour
        print(__name__, __file__, sys.argv, sys.modules["__main__"].__dict__ is globals())
        print(sys.path[0], neighbour.name, sorted(name for name in globals() if not name.startswith("__")))
    """
    (tmp_path / "sub").mkdir()
    script(tmp_path / "sub", "name = 'next door'", "neighbour.py")
    script(tmp_path / "sub", text)
    ours = fed("run", "sub/script.py", "--party", "alice", "--", "-x", "--party", "bob", cwd=tmp_path)
    command = [sys.executable, "sub/script.py", "-x", "--party", "bob"]
    theirs = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=True)
    assert ours.stdout.replace("sub/script.py", "") == theirs.stdout.replace(
        str(tmp_path / "sub/script.py"), ""
    ).replace("sub/script.py", "")
    assert (ours.returncode, ours.stderr) == (0, "")


def test_a_module_finds_itself_and_its_neighbours_as_under_python(tmp_path: Path) -> None:
    text = """
        import sys
        from . import neighbour
        from .neighbour import name
        print(__name__, __file__, __package__, __spec__.name, sys.argv, sys.modules["__main__"].__dict__ is globals())
        print(sys.path[0], name, neighbour.__name__)
    """
    (tmp_path / "shop").mkdir()
    script(tmp_path / "shop", "", "__init__.py")
    script(tmp_path / "shop", "name = 'next door'", "neighbour.py")
    script(tmp_path / "shop", text, "__main__.py")
    script(tmp_path / "shop", text + "        raise ValueError('bad')", "train.py")
    for module, code in (("shop", 0), ("shop.train", 1)):
        ours = fed("run", "-m", module, "--party", "alice", "--", "-x", "--party", "bob", cwd=tmp_path)
        command = [sys.executable, "-m", module, "-x", "--party", "bob"]
        theirs = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False)
        assert (ours.returncode, ours.stdout) == (code, theirs.stdout)
        assert theirs.returncode == code
        # Python's own begins with the frames of what has found the module.
        assert theirs.stderr.endswith(ours.stderr.removeprefix("Traceback (most recent call last):\n"))


def test_what_lies_in_the_current_directory_is_not_in_the_way_of_the_driver(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    script(tmp_path / "sub", "print('runs')")
    script(tmp_path, "raise RuntimeError", "queue.py")
    result = fed_by_its_name("run", "sub/script.py", "--party", "alice", cwd=tmp_path)
    assert (result.returncode, result.stdout, result.stderr) == (0, "runs\n", "")


def test_the_environment_tells_who_and_where(tmp_path: Path) -> None:
    text = "import os; print({n: t for n, t in os.environ.items() if n.startswith('FED_')})"
    script(tmp_path, text, "my script-1.py")
    (tmp_path / "site.toml").write_text("party = 'bob'")
    result = fed("run", "my script-1.py", "--party", "alice", "--config", "site.toml", cwd=tmp_path)
    config = str(tmp_path / "site.toml")
    assert result.stdout == f"{ {'FED_RUN_JOB': 'my-script-1', 'FED_CONFIG': config, 'FED_PARTY': 'alice'} }\n"
    result = fed("run", "my script-1.py", "--config", "site.toml", cwd=tmp_path)
    assert "'FED_PARTY': 'bob'" in result.stdout


@pytest.mark.parametrize(
    ("text", "code", "error"),
    [
        ("pass", 0, ""),
        ("raise SystemExit", 0, ""),
        ("raise SystemExit(7)", 7, ""),
        ("raise SystemExit('done for')", 1, "done for\n"),
        ("raise KeyboardInterrupt", 130, ""),
        ("from fed.errors import ConfigError; raise ConfigError('no x')", 2, "fed: error: no x (script.py:1)\n"),
        ("from fed.errors import UsageError; raise UsageError('not\\nso')", 2, "fed: error: not\nso (script.py:1)\n"),
        ("from fed.errors import InitError\nraise InitError('bob')", 2, "fed: error: bob (script.py:2)\n"),
        (
            "from fed.errors import RemoteError; raise RemoteError('E at bob')",
            1,
            "fed: error: E at bob (script.py:1)\n",
        ),
        ("from fed.errors import JobAborted; raise JobAborted('it is')", 1, "fed: error: it is (script.py:1)\n"),
        (
            "from fed.errors import FedTimeoutError; raise FedTimeoutError('late')",
            1,
            "fed: error: late (script.py:1)\n",
        ),
        ("import fed.config as c; c.Address.parse('x')", 2, "fed: error: address 'x' is malformed: write host:port, "),
    ],
)
def test_the_end_of_a_script(text: str, code: int, error: str, tmp_path: Path) -> None:
    script(tmp_path, text)
    result = fed_here("run", "script.py", "--party", "alice", cwd=tmp_path)
    assert result.returncode == code
    assert result.stderr.startswith(error)
    assert "Traceback" not in result.stderr
    assert error or not result.stderr


def test_the_traceback_of_a_script_is_its_own(tmp_path: Path) -> None:
    text = """\
        def f():
            raise ValueError("bad")

        try:
            f()
        except ValueError as error:
            raise RuntimeError("worse") from error
    """
    script(tmp_path, text)
    ours = fed("run", "script.py", "--party", "alice", cwd=tmp_path)
    theirs = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ours.returncode == theirs.returncode == 1
    assert ours.stderr == theirs.stderr.replace(str(tmp_path / "script.py"), "script.py")


def test_a_syntax_error_has_no_traceback_but_its_place(tmp_path: Path) -> None:
    script(tmp_path, "x = = 1\n")
    result = fed("run", "script.py", "--party", "alice", cwd=tmp_path)
    assert result.returncode == 1
    assert re.match(
        r' *File ".*script.py", line 1\n    x = = 1\n',
        result.stderr.removeprefix("Traceback (most recent call last):\n"),
    )
    assert "driver.py" not in result.stderr
    assert "runpy" not in result.stderr


def test_the_scripts_own_hook_sees_its_error(tmp_path: Path) -> None:
    script(tmp_path, "import sys\nsys.excepthook = lambda kind, error, trace: print('hook', error)\n1 / 0")
    result = fed("run", "script.py", "--party", "alice", cwd=tmp_path)
    assert (result.returncode, result.stdout, result.stderr) == (1, "hook division by zero\n", "")


def test_of_a_task_that_failed_here_the_users_error_comes_first(tmp_path: Path) -> None:
    text = """\
        from fed.errors import TaskError

        def body():
            raise ValueError("the user's own")

        try:
            body()
        except ValueError as error:
            cause = error
        raise TaskError("ValueError in task #3 body at party 'alice'") from cause
    """
    script(tmp_path, text)
    result = fed("run", "script.py", "--party", "alice", cwd=tmp_path)
    assert result.returncode == 1
    assert result.stderr.startswith("Traceback (most recent call last):\n")
    assert "in body" in result.stderr
    *_, error, last = result.stderr.splitlines()
    # It was made without a record, and so there is nothing to look up.
    assert error == "ValueError: the user's own"
    assert last == "fed: error: ValueError in task #3 body at party 'alice' (script.py:10)"
    assert "TaskError" not in result.stderr


LOGS = """
    import logging
    {configuration}
    logger = logging.getLogger("fed.engine.job")
    logger.info("quiet")
    logger.info("waiting", extra={{"fed_event": "waiting", "fed_detail": {{"for": ["bob", "carol"]}}}})
    logger.info("joined", extra={{"fed_event": "joined", "fed_detail": {{}}}})
    logger.info("over", extra={{"fed_event": "closed", "fed_detail": {{}}}})
    logger.warning("careful")
"""


def test_warnings_and_who_is_waited_for_are_shown(tmp_path: Path) -> None:
    script(tmp_path, LOGS.format(configuration=""))
    result = fed("run", "script.py", "--party", "alice", cwd=tmp_path)
    assert result.stderr == "fed: waiting for bob, carol\nfed: every party has joined\nfed: careful\n"


def test_a_script_that_configures_logging_decides_for_itself(tmp_path: Path) -> None:
    script(tmp_path, LOGS.format(configuration="logging.basicConfig(format='mine %(message)s', level='INFO')"))
    result = fed("run", "script.py", "--party", "alice", cwd=tmp_path)
    assert result.stderr == "mine quiet\nmine waiting\nmine joined\nmine over\nmine careful\n"


def test_the_log_names_the_run_and_holds_what_the_terminal_is_spared(tmp_path: Path, logs: Path) -> None:
    script(tmp_path, LOGS.format(configuration="") + "    raise OSError('disk full')")
    result = fed("run", "script.py", "--party", "alice", cwd=tmp_path)
    assert result.returncode == 1
    text = (logs / "alice.log").read_text()
    assert f"---- job script, party alice: {tmp_path / 'script.py'}, fedray " in text
    assert "INFO fed.engine.job: quiet\n" in text
    assert "WARNING fed.engine.job: careful\n" in text
    assert "ERROR fed.cli: OSError: disk full\n    Traceback" in text


@pytest.mark.parametrize(
    ("text", "how"),
    [
        ("pass", "well"),
        ("raise SystemExit(3)", "by sys.exit(3)"),
        ("raise KeyboardInterrupt", "interrupted"),
        ("from fed.errors import InitError; raise InitError('bob')", "with InitError"),
    ],
)
def test_the_log_says_how_the_script_ended(text: str, how: str, tmp_path: Path, logs: Path) -> None:
    script(tmp_path, text)
    fed_here("run", "script.py", "--party", "alice", cwd=tmp_path)
    assert (logs / "alice.log").read_text().endswith(f"INFO fed.cli: the script ended {how}\n")


def test_the_option_counts_more_than_the_environment_and_neither_is_handed_on(tmp_path: Path, logs: Path) -> None:
    script(tmp_path, "import os; os.chdir('/'); print([name for name in os.environ if 'LOG_DIR' in name])")
    result = fed("run", "script.py", "--party", "alice", "--log-dir", "here", cwd=tmp_path)
    assert (result.stdout, result.stderr) == ("[]\n", "")
    assert (tmp_path / "here" / "alice.log").exists()
    assert not list(logs.iterdir())


def test_without_a_choice_the_log_goes_where_the_users_state_goes(tmp_path: Path) -> None:
    script(tmp_path, "pass")
    variables = {"XDG_STATE_HOME": str(tmp_path / "state"), "FED_LOG_DIR": ""}
    fed("run", "script.py", "--party", "alice", cwd=tmp_path, env=environment(**variables))
    assert (tmp_path / "state" / "fedray" / "script" / "alice.log").exists()


def test_a_script_runs_without_a_log_if_it_must(tmp_path: Path) -> None:
    script(tmp_path, "print('runs')")
    result = fed("run", "script.py", "--party", "alice", "--log-dir", "script.py", cwd=tmp_path)
    assert (result.returncode, result.stdout) == (0, "runs\n")
    assert result.stderr.startswith("fed: warning: no log file, ")
    assert result.stderr.endswith(": give a directory with --log-dir or FED_LOG_DIR\n")
    assert result.stderr.count("\n") == 1


INTERRUPTED = """
    from fed.core.failure import Failure, Kind
    from fed.errors import JobAborted
    class JobInterrupted(JobAborted, KeyboardInterrupt): pass
    raise JobInterrupted("the job was aborted", Failure("bob/1/1", Kind.TASK, "bob", "ValueError", "#3 train", 3))
"""


def test_a_driver_that_the_library_interrupts_says_why(tmp_path: Path) -> None:
    script(tmp_path, INTERRUPTED)
    result = fed("run", "script.py", "--party", "alice", cwd=tmp_path)
    assert result.returncode == 1
    assert result.stderr == (
        "fed: error: the job was aborted [TASK, script.py:5]\n"
        "fed: the message and traceback are in the log of party 'bob' under bob/1/1\n"
    )


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_the_exit_code_says_what_ended_a_party(tmp_path: Path, number: int, code: int) -> None:
    # Not in a system call, which a signal that comes just before does not interrupt.
    script(tmp_path, "import os; print('here', os.getpid(), flush=True)\nwhile True: pass")
    with started("run", "script.py", "--party", "alice", cwd=tmp_path) as process:
        assert process.stdout is not None
        [line] = read_until(process.stdout, "here")
        # The script took the command's place.
        assert line == f"here {process.pid}\n"
        os.kill(process.pid, number)
        assert process.wait(60) == code


def test_sigterm_ends_a_party_that_ignores_ctrl_c_too(tmp_path: Path) -> None:
    script(
        tmp_path,
        "import os, signal; signal.signal(signal.SIGINT, signal.SIG_IGN); print('here', flush=True); signal.pause()",
    )
    with started("run", "script.py", "--party", "alice", cwd=tmp_path) as process:
        assert process.stdout is not None
        read_until(process.stdout, "here")
        os.kill(process.pid, signal.SIGTERM)
        assert process.wait(60) == 143


def test_what_was_ignored_stays_ignored_and_sigterm_ends_it_as_ctrl_c_does(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    text = """
        import signal
        print("ignored", [signal.getsignal(n) is signal.SIG_IGN for n in (signal.SIGHUP, signal.SIGINT)], flush=True)
        try:
            open("fifo").read()
            print("still here", flush=True)
            while True:
                pass
        finally:
            print("cleaned up", flush=True)
    """
    script(tmp_path, text)
    with ignored(signal.SIGHUP, signal.SIGINT), started("run", "script.py", "--party", "a", cwd=tmp_path) as process:
        assert process.stdout is not None
        assert read_until(process.stdout, "ignored") == ["ignored [True, True]\n"]
        os.kill(process.pid, signal.SIGHUP)
        os.kill(process.pid, signal.SIGINT)
        (tmp_path / "fifo").write_text("")
        read_until(process.stdout, "still here")
        os.kill(process.pid, signal.SIGTERM)
        read_until(process.stdout, "cleaned up")
        assert process.wait(60) == 143


CHILDREN = """
    import multiprocessing, os, signal
    child = multiprocessing.get_context("fork").Process(target=signal.pause)
    child.start()
    child.terminate()
    child.join()
    print(child.exitcode)
    pid = os.fork()
    if pid == 0:
        try:
            signal.pause()
        finally:
            os._exit(1)
    os.kill(pid, signal.{name})
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_a_child_of_the_script_ends_as_under_python(name: str, tmp_path: Path) -> None:
    script(tmp_path, CHILDREN.format(name=name))
    result = fed("run", "script.py", "--party", "alice", cwd=tmp_path)
    number = int(getattr(signal, name))
    assert (result.returncode, result.stdout, result.stderr) == (0, f"-15\n-{number}\n", "")


def test_a_child_of_the_script_does_not_speak_for_it(tmp_path: Path, logs: Path) -> None:
    script(
        tmp_path,
        "import os, sys\npid = os.fork()\nif pid == 0:\n    sys.exit(3)\n"
        "print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))",
    )
    result = fed("run", "script.py", "--party", "alice", cwd=tmp_path)
    assert (result.returncode, result.stdout, result.stderr) == (0, "3\n", "")
    text = (logs / "alice.log").read_text()
    assert text.count("the script ended") == 1
    assert "the script ended well" in text


def test_a_script_that_handles_sigterm_goes_on_doing_so(tmp_path: Path) -> None:
    script(
        tmp_path,
        "import signal, sys\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(7))\n"
        "print('here', flush=True)\nsignal.pause()",
    )
    with started("run", "script.py", "--party", "alice", cwd=tmp_path) as process:
        assert process.stdout is not None
        read_until(process.stdout, "here")
        os.kill(process.pid, signal.SIGTERM)
        assert process.wait(60) == 7
