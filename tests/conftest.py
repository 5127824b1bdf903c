"""What every test is held to: it leaves no thread behind, and the whole run leaves no process behind."""

from __future__ import annotations

import os
import signal
import tempfile
import threading
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Final

import psutil
import pytest
from hypothesis import HealthCheck, settings
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

pytest.register_assert_rewrite("tests.support", "tests.soak")

# After the above, so that their asserts say what they found.
from tests.support.eventually import eventually  # noqa: E402
from tests.support.profile import PROFILE, SEED  # noqa: E402

pytest_plugins = ["tests.support.fixtures"]

# How long an example takes says something of the machine only, and what is drawn may be large.
settings.register_profile("fed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("fed")

# So they are in the background of a shell and under nohup, and would be in every process that a test starts.
for _number, _handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, _handler)

TESTS: Final = Path(__file__).parent
FOLDERS: Final = ("unit", "simulated", "integration", "soak")


def pytest_report_header() -> str:
    return f"FED_TEST_PROFILE={PROFILE} FED_TEST_SEED={SEED}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What kind of test one is follows from its folders."""
    for item in items:
        kinds = [folder for folder in item.path.relative_to(TESTS).parts if folder in FOLDERS]
        if not kinds:
            raise pytest.UsageError(f"{item.path} is in none of the folders of tests/: {', '.join(FOLDERS)}")
        for kind in kinds:
            item.add_marker(kind)


class _ByFolder(LoadScopeScheduling):  # type: ignore[misc]  # it has no types
    """Which tests one process of a run has to itself, with ``pytest -n``.

    Two processes run all that needs real Ray, each on one cluster, and the others what needs none. With more clusters
    two cores are so busy with starting processes that all of it takes longer.
    """

    def _split_scope(self, nodeid: str) -> str:
        folder, found, _ = nodeid.partition("/integration/")
        return folder if found else nodeid


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling:
    return _ByFolder(config, log)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """What a test prints need not be valid Unicode, but what travels between the processes of a run must."""
    report = yield
    report.sections = [(name, text.encode(errors="backslashreplace").decode()) for name, text in report.sections]
    return report


def fed_threads() -> set[threading.Thread]:
    """Threads of the library that are alive."""
    return {thread for thread in threading.enumerate() if thread.name.startswith("fed-")}


@pytest.fixture(autouse=True)
def _no_thread_left() -> Iterator[None]:
    # What a fixture of the whole module started is there before, and may stay.
    before = fed_threads()
    yield
    assert eventually(lambda: fed_threads() <= before), f"threads left behind: {fed_threads() - before}"


@pytest.fixture(autouse=True, scope="session")
def _no_file_left() -> Iterator[None]:
    """Whatever Ray and the library write goes to a folder of this run, where only Ray's sessions may be at the end."""
    # A short path: Ray's Unix sockets lie below it, and their names have a limit.
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory(prefix="ft-") as folder:
        patch.setenv("RAY_TMPDIR", folder)
        patch.setenv("TMPDIR", folder)
        # The logs of the parties.
        patch.setenv("XDG_STATE_HOME", folder)
        patch.setattr(tempfile, "tempdir", folder)
        yield
        left = sorted(path.name for path in Path(folder).iterdir() if path.name.startswith("fed-"))
        assert not left, f"files left behind: {left}"


@pytest.fixture(autouse=True, scope="session")
def _no_port_left() -> Iterator[None]:
    def listening() -> set[int]:
        connections = psutil.Process().net_connections("inet")
        return {one.laddr.port for one in connections if one.status == psutil.CONN_LISTEN}

    before = listening()
    yield
    assert listening() <= before, f"ports left behind: {listening() - before}"


@pytest.fixture(autouse=True, scope="session")
def _no_process_left() -> Iterator[None]:
    # The shared cluster is ended by its own fixture before this one looks, since that one is asked for later.
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    yield

    def left() -> list[str]:
        children = psutil.Process().children(recursive=True)
        return [
            child.name() for child in children if child.pid not in before and child.status() != psutil.STATUS_ZOMBIE
        ]

    assert eventually(lambda: not left()), f"processes left behind: {left()}"


@pytest.fixture(autouse=True)
def _no_variables_of_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("FED_")]:
        monkeypatch.delenv(name)
