"""Frames in a stream of bytes: four bytes of length, then as many of content. Pure."""

from __future__ import annotations

import struct
from typing import Final

from fed.channel.contract import MAX_FRAME_BYTES, ChannelError

__all__ = ["Framer", "check_frames", "framed"]

_LENGTH: Final = struct.Struct("<I")


def framed(frames: tuple[bytes, ...]) -> bytes:
    """These frames as one run of bytes.

    Raises:
        ValueError: One is larger than `MAX_FRAME_BYTES`.
    """
    check_frames(frames)
    return b"".join([piece for frame in frames for piece in (_LENGTH.pack(len(frame)), frame)])


def check_frames(frames: tuple[bytes, ...]) -> None:
    """Refuse what is too large to send.

    Raises:
        ValueError: A frame is larger than `MAX_FRAME_BYTES`.
    """
    for frame in frames:
        if len(frame) > MAX_FRAME_BYTES:
            raise ValueError(f"a frame of {len(frame)} bytes is over the limit of {MAX_FRAME_BYTES}")


class Framer:
    """Takes a stream apart again, in whatever pieces it comes."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """Take in what has come. Returns the frames that are whole by now.

        Raises:
            ChannelError: A frame is larger than any may be.
        """
        # Most of the time what comes is whole frames, which then are copied once.
        source: bytes | bytearray = data
        if self._rest:
            self._rest += data
            source = self._rest
        frames: list[bytes] = []
        start = 0
        while len(source) - start >= _LENGTH.size:
            (size,) = _LENGTH.unpack_from(source, start)
            if size > MAX_FRAME_BYTES:
                raise ChannelError(f"a frame of {size} bytes is over the limit of {MAX_FRAME_BYTES}")
            end = start + _LENGTH.size + size
            if end > len(source):
                break
            frames.append(bytes(source[start + _LENGTH.size : end]))
            start = end
        if source is data:
            self._rest += data[start:]
        else:
            del self._rest[:start]
        return frames
