"""What is said of a cluster that cannot be used."""

from __future__ import annotations

import pytest

from fed.runtime.cluster import reason_of


@pytest.mark.parametrize(
    ("text", "address", "mode", "reason"),
    [
        ("It is broken.\n 1. Mend it, or\n 2. leave it.", "local", "", "It is broken. 1. Mend it, or 2. leave it."),
        ("", "local", "", "ValueError"),
        (
            "AF_UNIX path length cannot exceed 107 bytes: /x",
            "local",
            "",
            "AF_UNIX path length cannot exceed 107 bytes: /x (give a directory with a shorter path by RAY_TMPDIR)",
        ),
        (
            "It failed",
            "10.0.0.5:6379",
            "",
            "It failed (if it asks for a token, as one does that ray start has started, set RAY_AUTH_MODE=token)",
        ),
        ("Failed to connect", "10.0.0.5:6379", "token", "Failed to connect"),
    ],
)
def test_a_cluster_that_cannot_be_used_has_a_reason_in_one_line(
    text: str, address: str, mode: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", mode)
    assert reason_of(ValueError(text), address) == reason
