"""Objects that cross all the time while something is done to the network, and what came of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from tests.support.eventually import eventually
from tests.support.hosting import ANSWER_S, Host, Playing

__all__ = ["Answers", "Traffic", "transferred"]

LARGE_BYTES: Final = 300_000
"""Beyond what travels in batches."""

Answers = Mapping[str, Any]


class Traffic:
    """Objects that go to and fro, small and large, until they are told to stop; and what came of them.

    Args:
        host: Whose parties they are.
        parties: Those of them that take part.
        given: The options of the job.
        stop: A path that is free.
    """

    def __init__(self, host: Host, parties: Sequence[str], given: Mapping[str, Any], stop: Path) -> None:
        self.parties = tuple(parties)
        self._stop = stop
        self._playing: Playing = host.begin("traffic", dict(given), str(stop), LARGE_BYTES)
        self.wait_for_rounds(2)

    @property
    def rounds(self) -> int:
        """How many every party has been through."""
        return min(self._rounds(party) for party in self.parties)

    def wait_for_rounds(self, count: int) -> None:
        """Wait until every party has been through so many more rounds."""
        wanted = {party: self._rounds(party) + count for party in self.parties}
        for party in self.parties:
            eventually(lambda party=party: self._rounds(party) >= wanted[party] or self._over(party), ANSWER_S)  # type: ignore[misc]
            assert self._rounds(party) >= wanted[party], f"{party} stopped: {self._playing.printed(party)[-20:]}"

    def stop(self) -> Answers:
        """Let it come to its end."""
        self._stop.touch()
        return self.answers()

    def answers(self) -> Answers:
        """What came of it in each party."""
        found = self._playing.answers()
        return {party: found[party] for party in self.parties}

    def assert_whole(self) -> Answers:
        """Let it come to its end: nothing was lost, nothing came twice, everything was right."""
        answers = self.stop()
        for party, answer in answers.items():
            assert "error" not in answer, answers
            assert answer["value"]["wrong"] == {}, (party, answer)
            assert answer["reports"] == []
        assert len({answer["value"]["rounds"] for answer in answers.values()}) == 1
        return answers

    def _rounds(self, party: str) -> int:
        return sum(line.startswith("round ") for line in self._playing.printed(party))

    def _over(self, party: str) -> bool:
        return any(line.startswith("answer ") for line in self._playing.printed(party))


def transferred(nbytes: int) -> list[list[int]]:
    """What `one_large` in ``programs/crossings.py`` comes to, for an object of this size."""
    count = nbytes // 8
    return [[nbytes, count * (count - 1) // 2, count // 3]] * 2 + [[2]]
