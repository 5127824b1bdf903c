"""What README.md and docs/ say is true: every block in the README is run, or at least read as its reader would."""

from __future__ import annotations

import dataclasses
import re
import runpy
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from click.testing import CliRunner

import fed
from fed import config
from fed.cli.command import main as command
from fed.testing import simulate
from fed.transport.credentials import check_own_credentials
from tests.support.pages import PAGES, README, ROOT, Block, blocks_of, credentials, only, saved, shell


def test_every_block_of_the_readme_is_held_by_a_test() -> None:
    held = {
        "sh": (
            "make demo",
            "fed run total.py --simulate",
            "fed run total.py --party",
            "openssl req -x509",
            "openssl req -new",
            "openssl x509 -req",
        ),
        "python": ("def main()", "def test_"),
        "text": ("alice | ", "party alice  "),
        "toml": ("[parties]",),
    }
    for block in blocks_of(README):
        known = [text for text in held[block.language] if text in block.text]
        assert known, f"{block} is held by no test"


def test_make_has_the_targets_that_are_named() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        named = set(re.findall(r"^make ([a-z-]+)$", text, re.MULTILINE)) | set(re.findall(r"`make ([a-z-]+)`", text))
        assert named <= targets, f"{page.name} names {named - targets}"
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o100
    if shutil.which("make"):
        for target in sorted(targets - {"clean"}):
            assert shell(f"make --dry-run {target}", ROOT).returncode == 0


def test_the_example_and_its_test_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "total", raising=False)
    tests = [
        value for name, value in runpy.run_path(str(tmp_path / "test_total.py")).items() if name.startswith("test_")
    ]
    assert tests
    for test in tests:
        test()
    sys.modules.pop("total")


def test_the_example_prints_in_simulation_what_is_shown(tmp_path: Path) -> None:
    saved(tmp_path)
    main = runpy.run_path(str(tmp_path / "total.py"))["main"]
    shown = dict(re.findall(r"^(\w+) +\| (\d+)$", only("text", "alice | ").text, re.MULTILINE))
    assert {party: str(total) for party, total in simulate(main, parties=list(shown)).items()} == shown


def test_the_file_of_options_serves_every_party(tmp_path: Path) -> None:
    (tmp_path / "fed.toml").write_text(only("toml", "[parties]").text, encoding="utf-8")
    for party in ("alice", "bob"):
        loaded = config.load({"party": party}, {}, tmp_path)
        assert loaded.parties == ("alice", "bob")
        assert loaded.tls is not None
        assert (loaded.tls.cert, loaded.tls.key) == (tmp_path / f"{party}.pem", tmp_path / f"{party}.key")


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_the_certificates_are_accepted(tmp_path: Path) -> None:
    (tmp_path / "fed.toml").write_text(only("toml", "[parties]").text, encoding="utf-8")
    credentials(tmp_path, "alice", "bob")
    for party in ("alice", "bob"):
        tls = config.load({"party": party}, {}, tmp_path).tls
        assert tls is not None
        check_own_credentials(party, tls)


# The documentation


def python_blocks() -> list[Block]:
    return [block for page in PAGES for block in blocks_of(page) if block.language == "python"]


@pytest.mark.parametrize("block", python_blocks(), ids=str)
def test_python_in_the_pages_is_python_and_runs_where_it_is_a_program(block: Block, tmp_path: Path) -> None:
    compile(block.text, str(block), "exec")
    if "from total import" in block.text:
        return  # It takes the file of another block, and has a test of its own.
    (tmp_path / "program.py").write_text(block.text, encoding="utf-8")
    for name, value in runpy.run_path(str(tmp_path / "program.py")).items():
        if name == "main":
            simulate(value, parties=["alice", "bob", "carol"])
        elif name.startswith("test_"):
            value()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.name))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        if not target.startswith(("http://", "https://")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_every_page_is_reached_from_the_index() -> None:
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    for page in PAGES[2:]:
        assert page.name == "index.md" or f"({page.name})" in index


def test_every_option_is_documented_with_its_default() -> None:
    text = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    rows = {row[0]: row for row in map(_cells, text.splitlines()) if row}
    for field in dataclasses.fields(config.Config):
        assert f"`{field.name}`" in rows, f"no row for {field.name}"
        if isinstance(field.default, (bool, int, float, str)):
            shown = f"{field.default:g}" if isinstance(field.default, float) else str(field.default).lower()
            assert f"`{shown}`" in rows[f"`{field.name}`"], f"{field.name} has the default {shown}"
    known = {f"`{field.name}`" for field in dataclasses.fields(config.Config)} | {"`config`"}
    assert {name for name in rows if name.startswith("`")} <= known


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")] if line.startswith("| `") else []


def test_rules_of_the_error_model_name_tests_that_exist() -> None:
    text = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(test_e\d\d_\w+)`", text))
    assert {name[:8] for name in named} >= {f"test_e{number:02}" for number in range(1, 7)}
    sources = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    assert {name for name in named if f"def {name}(" not in sources} == set()


def test_exceptions_are_documented() -> None:
    text = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
    public: Mapping[str, object] = {name: getattr(fed, name) for name in fed.__all__}
    for name, value in public.items():
        if isinstance(value, type) and issubclass(value, fed.FedError):
            assert name in text


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.name))
def test_commands_in_the_pages_exist(page: Path) -> None:
    known = set(re.findall(r"--[a-z-]+", CliRunner().invoke(command, ["run", "--help"]).output))
    for line in re.findall(r"\bfed run [^\n`]*", page.read_text(encoding="utf-8")):
        own = line.partition(" -- ")[0]
        assert set(re.findall(r"--[a-z-]+", own)) <= known, f"{page.name}: {line}"
