"""README.md and the pages of docs/: what is in them, and how a reader would run it."""

from __future__ import annotations

import dataclasses
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
PAGES = [README, ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
DEADLINE_S = 100.0


@dataclasses.dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        page: Where it stands.
        line: Its first line's number.
        language: What stands behind the fence.
        name: The file that the text tells to save it as; empty if none.
        text: What is in it.
    """

    page: str
    line: int
    language: str
    name: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks_of(page: Path) -> Iterator[Block]:
    content = page.read_text(encoding="utf-8")
    before = 0
    for match in re.finditer(r"^```(\w*)\n(.*?)^```$", content, re.DOTALL | re.MULTILINE):
        names = re.findall(r"[Ss]ave this as `([\w.]+)`:?\s*\Z", content[before : match.start()])
        line = content.count("\n", 0, match.start()) + 2
        yield Block(page.name, line, match[1], names[0] if names else "", match[2])
        before = match.end()


def only(language: str, containing: str) -> Block:
    [found] = [block for block in blocks_of(README) if block.language == language and containing in block.text]
    return found


def saved(directory: Path) -> None:
    """Do what the README says with the files that are to be saved."""
    for block in blocks_of(README):
        if block.name:
            (directory / block.name).write_text(block.text, encoding="utf-8")


def shell(text: str, directory: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a block as it stands, with the commands of this environment in reach."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("FED_", "RAY_", "MAKE"))}
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", text],
        cwd=directory,
        env={**inherited, "PATH": path, **variables},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )


def credentials(directory: Path, *parties: str) -> None:
    """Make certificates by the README's commands, which are written for alice."""
    for block in blocks_of(README):
        if "openssl" in block.text:
            # Those that make the authority name nobody.
            for party in parties if "alice" in block.text else parties[:1]:
                result = shell(block.text.replace("alice", party), directory)
                assert result.returncode == 0, f"{block}: {result.stderr}"
