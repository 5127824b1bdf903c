"""Which life of a proxy is the present one. Pure."""

from __future__ import annotations

from fed.channel.contract import Role

__all__ = ["Boots"]


class Boots:
    """The lives of the proxies that have connected. Not thread-safe."""

    def __init__(self) -> None:
        self._present: dict[Role, str] = {}
        self._past: set[str] = set()

    def admits(self, role: Role, boot_id: str) -> bool:
        """A life connects. Returns whether it may: unless a later one has taken its place."""
        if boot_id in self._past:
            return False
        present = self._present.get(role)
        if present is not None and present != boot_id:
            self._past.add(present)
        self._present[role] = boot_id
        return True
