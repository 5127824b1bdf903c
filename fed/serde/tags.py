"""What the marks of codec ``data`` say: of what kind the value is that follows."""

from __future__ import annotations

import enum

__all__ = ["Tag"]


class Tag(enum.IntEnum):
    """What follows a mark. The numbers are the wire format: never reuse one.

    Attributes:
        work: What it takes to rebuild one, beside what is in it: in time, or in memory where that counts for more.
    """

    work: int

    def __new__(cls, number: int, work: int = 4) -> Tag:
        """Make a member of its number and what it takes."""
        tag = int.__new__(cls, number)
        tag._value_ = number
        tag.work = work
        return tag

    BIG_INT = 0
    PIECES = 1, 0
    TUPLE = 2, 1
    DICT = 3, 1
    SET = 4
    FROZENSET = 5
    BYTES = 6
    BYTEARRAY = 7
    FLOATS = 8
    COMPLEX = 9
    RANGE = 10
    SLICE = 11
    DECIMAL = 12
    FRACTION = 13
    UUID = 14
    DATETIME = 15
    DATE = 16
    TIME = 17
    TIMEDELTA = 18
    TIMEZONE = 19
    ZONEINFO = 20
    PATH = 21
    ORDERED_DICT = 22, 8
    DEFAULT_DICT = 23
    COUNTER = 24
    # 760 bytes, even if it is empty.
    DEQUE = 25, 16
    ENUM = 32
    DATACLASS = 33
    NAMED_TUPLE = 34
    # What the user's own code does is not known here.
    CODED = 35, 20
    NUMPY_ARRAY = 48, 10
    NUMPY_SCALAR = 49, 10
    NUMPY_ITEMS = 50, 10
    TORCH_TENSOR = 56, 10
    PANDAS_SERIES = 64, 100
    PANDAS_FRAME = 65, 300
    PANDAS_INDEX = 66, 100
    PANDAS_ARRAY = 67, 100
    PANDAS_TIMESTAMP = 68, 20
    PANDAS_TIMEDELTA = 69, 10
    PANDAS_MISSING = 70
    ARROW = 80, 100
    POLARS = 81, 100
    SPARSE = 96, 100
