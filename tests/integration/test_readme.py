"""What README.md shows of real runs is what they print."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from fed.testing.simulation import free_addresses
from tests.support.pages import credentials, only, saved, shell


def test_the_command_prints_what_is_shown(tmp_path: Path) -> None:
    saved(tmp_path)
    result = shell(only("sh", "--simulate").text, tmp_path)
    assert result.returncode == 0, result.stderr
    assert sorted(result.stdout.splitlines()) == only("text", "alice | ").text.splitlines()


@pytest.mark.timeout(240)
@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_the_way_across_machines(tmp_path: Path) -> None:
    """As written, but for the two hosts: both are this one. Each party has a Ray cluster of its own."""
    saved(tmp_path)
    credentials(tmp_path, "alice", "bob")
    options = only("toml", "[parties]").text
    for party, address in zip(("alice", "bob"), free_addresses(2), strict=True):
        options = re.sub(rf'"fed\.{party}\.example:\d+"', f'"{address}"', options)
    (tmp_path / "fed.toml").write_text(options, encoding="utf-8")
    alice = only("sh", "--party").text.strip()
    bob = alice.replace("alice", "bob")
    both = f"{bob} > bob.out 2> bob.err & {alice}; wait $!"
    result = shell(both, tmp_path)
    assert result.returncode == 0, f"{result.stderr}\n{(tmp_path / 'bob.err').read_text(encoding='utf-8')}"
    assert result.stdout == (tmp_path / "bob.out").read_text(encoding="utf-8")
    assert re.fullmatch(r"\d+\n", result.stdout)
