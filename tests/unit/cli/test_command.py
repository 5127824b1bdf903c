"""What is refused before anything starts, in one sentence and with exit code 2; and what the help says."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from fed.cli import main
from tests.support.launching import environment


def fed(*arguments: str, env: dict[str, str] | None = None) -> Result:
    return CliRunner().invoke(main, arguments, prog_name="fed", env=env)


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("FED_PARTY", "FED_JOB", "FED_CONFIG", "FED_ADDRESSES", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "script.py").write_text("raise SystemExit('this must not run')")
    return tmp_path


def test_the_version_is_the_packages() -> None:
    assert fed("--version").output == f"fed, version {importlib.metadata.version('fedray')}\n"


def test_the_help_documents_the_options_and_the_exit_codes() -> None:
    result = fed("run", "--help")
    assert result.exit_code == 0
    for text in ("--simulate", "--party", "--config", "--grace", "130  interrupted", "  2  wrong usage", "train.py"):
        assert text in result.output
    assert "\n  fed run train.py --party alice\n" in result.output
    assert fed("run", "-h").output == result.output
    assert "run" in fed("--help").output


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["nope.py", "--party", "a"], "script 'nope.py' does not exist"),
        ([".", "--simulate", "a,b"], "script '.' is a directory"),
        (["-m", "nope.train", "--simulate", "a"], "module 'nope.train' is found neither in "),
        (["script.py", "--simulate", "a,b,a"], "--simulate: party 'a' occurs twice"),
        (["script.py", "--simulate", ""], "--simulate: expected a party's name (1 to 63 letters, "),
        (["script.py", "--simulate", "a,,b"], "--simulate: expected a party's name (1 to 63 letters, "),
        (["script.py", "--simulate", "a b"], "--simulate: expected a party's name (1 to 63 letters, "),
        (["script.py", "--simulate", "../x"], "--simulate: expected a party's name (1 to 63 letters, "),
        (["script.py", "--party", "a/b"], "argument party: expected a party's name (1 to 63 letters, "),
        (["script.py", "--party", "a", "--config", "nope.toml"], "nope.toml cannot be read: No such file or directory"),
        (["script.py", "--simulate", "a", "--config", "nope.toml"], "nope.toml cannot be read: No such file or dir"),
        (["script.py", "--simulate", "a", "--ray-address", "http://h:8265"], "--ray-address: 'http://h:8265' leads to"),
        (["script.py", "--simulate", "a", "--ray-address", ""], "--ray-address: expected a non-empty string, found ''"),
    ],
)
def test_what_cannot_be_run_is_refused_in_one_sentence(arguments: Sequence[str], sentence: str) -> None:
    result = fed("run", *arguments)
    assert result.exit_code == 2
    assert result.stderr.startswith("fed: error: ")
    assert sentence in result.stderr
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "Missing argument 'SCRIPT'"),
        (
            ["script.py"],
            "which party? Give --party NAME, set FED_PARTY, or write party in fed.toml; or give --simulate",
        ),
        (["script.py", "--simulate", "a", "--party", "a"], "--simulate and --party exclude one another"),
        (["script.py", "--lr", "3"], "The script's own options go after --."),
        (["script.py", "--part", "a"], "Did you mean '--party'? The script's own options go after --."),
        (["script.py", "--party", "a", "--grace", "3"], "--grace concerns simulations only: use it with --simulate"),
        (["script.py", "--party", "a", "--cpus", "3"], "--cpus concerns simulations only: use it with --simulate"),
        (["script.py", "--simulate", "a", "--grace", "-1"], "Invalid value for '--grace'"),
        (["script.py", "--simulate", "a", "--cpus", "1", "--ray-address", "x:1"], "--cpus and --ray-address exclude"),
    ],
)
def test_wrong_usage_is_refused_with_a_pointer_to_the_help(arguments: Sequence[str], sentence: str) -> None:
    result = fed("run", *arguments)
    assert result.exit_code == 2
    assert sentence in " ".join(result.stderr.split())
    assert "Try 'fed run -" in result.stderr


def test_a_cluster_that_ray_is_told_of_has_the_cpus_it_has() -> None:
    result = fed("run", "script.py", "--simulate", "a", "--cpus", "1", env={"RAY_ADDRESS": "10.0.0.5:6379"})
    assert result.exit_code == 2
    assert (
        "--cpus and RAY_ADDRESS exclude one another: the cluster at 10.0.0.5:6379 has the CPUs it has; "
        "--ray-address local starts another one"
    ) in " ".join(result.stderr.split())


def test_a_simulation_runs_on_the_cluster_that_ray_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    joined: dict[str, str] = {}

    def simulate(*_: object, cluster: AbstractContextManager[Mapping[str, str]], **__: object) -> int:
        with cluster as variables:
            joined.update(variables)
        return 0

    monkeypatch.setattr("fed.cli.simulation.simulate", simulate)
    result = fed("run", "script.py", "--simulate", "a", env={"RAY_ADDRESS": "10.0.0.5:6379"})
    assert (result.exit_code, joined) == (0, {"FED_RAY_ADDRESS": "10.0.0.5:6379"})
    assert result.stderr == "fed: on the Ray cluster at 10.0.0.5:6379 (RAY_ADDRESS)\n"


def test_a_job_of_a_cluster_starts_no_other_one() -> None:
    environ = {"RAY_ADDRESS": "10.0.0.5:6379", "RAY_JOB_CONFIG_JSON_ENV_VAR": "{}"}
    result = fed("run", "script.py", "--simulate", "a", "--ray-address", "local", env=environ)
    assert result.exit_code == 2
    assert result.stderr.splitlines()[-1] == (
        "fed: error: the address 'local' starts a Ray cluster, but this program was submitted as a job to the one at "
        "'10.0.0.5:6379': give '10.0.0.5:6379' as the address (option ray_address, --ray-address in a simulation), "
        "or none"
    )


@pytest.mark.parametrize("mode", [["--party", "alice"], ["--simulate", "alice,bob"]])
def test_a_malformed_file_is_refused_with_the_place(mode: Sequence[str], directory: Path) -> None:
    (directory / "fed.toml").write_text("job = \n")
    result = fed("run", "script.py", *mode)
    assert result.exit_code == 2
    assert result.stderr == f"fed: error: {directory / 'fed.toml'}, line 1, column 7: Invalid value\n"


@pytest.mark.parametrize("mode", [["--party", "alice"], ["--simulate", "alice,bob"]])
def test_a_misspelt_variable_is_refused(mode: Sequence[str]) -> None:
    result = fed("run", "script.py", *mode, env={"FED_PARTYY": "x"})
    assert result.exit_code == 2
    assert result.stderr == (
        "fed: error: environment: unknown variable 'FED_PARTYY', did you mean 'FED_PARTY'? "
        "If it is meant for something else, give it another name\n"
    )


@pytest.mark.parametrize("mode", [["--party", "alice"], ["--simulate", "alice,bob"]])
def test_a_file_in_the_way_of_the_package_is_refused(mode: Sequence[str], directory: Path) -> None:
    (directory / "fed.py").touch()
    result = fed("run", "script.py", *mode)
    assert result.exit_code == 2
    assert result.stderr == (
        f"fed: error: {directory / 'fed.py'} hides the package fed, which it is not: give it another name\n"
    )


def test_a_party_that_the_file_does_not_know_is_refused_with_those_it_does(directory: Path) -> None:
    (directory / "fed.toml").write_text("[parties]\nbob = 'b:1'\nalice = 'a:1'\n")
    result = fed("run", "script.py", "--party", "dave")
    assert result.exit_code == 2
    assert result.stderr == "fed: error: party 'dave' is unknown: the parties are alice, bob\n"
    result = fed("run", "script.py", env={"FED_PARTY": "dave"})
    assert result.stderr == "fed: error: party 'dave' is unknown: the parties are alice, bob\n"


def test_the_command_itself_imports_nothing_slow() -> None:
    # Of the command's own modules; what the package's root imports is tested with the package.
    code = "import sys; import fed; before = set(sys.modules); import fed.cli; print(set(sys.modules) - before)"
    result = subprocess.run(
        [sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True, timeout=60
    )
    assert not {"ray", "rich", "grpc", "cryptography", "asyncio"} & {
        name.strip(" '{}\n") for name in result.stdout.split(",")
    }
