"""What every test of the command line is held to: the logs of its drivers stay out of the user's home."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def logs(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where drivers that this test starts write their logs."""
    directory = tmp_path_factory.mktemp("logs")
    monkeypatch.setenv("FED_LOG_DIR", str(directory))
    return directory
