from __future__ import annotations

import ctypes
import gc
import platform
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fed.transport.blocks import SMALLEST, SMALLEST_HUGE, Blocks, _size_class

MIB = 1 << 20


@settings(deadline=None)
@given(st.integers(SMALLEST, 1 << 40))
def test_size_classes_waste_little_and_are_few(nbytes: int) -> None:
    size = _size_class(nbytes)
    assert nbytes <= size <= nbytes * 9 // 8 + 4096
    assert _size_class(size) == size


@pytest.mark.parametrize("nbytes", [0, 1, 63, 64, SMALLEST - 1, SMALLEST, SMALLEST + 1, 5 * MIB + 3])
def test_memory_is_as_large_as_asked_and_can_be_written(nbytes: int) -> None:
    view = Blocks().take(nbytes)
    assert (view.nbytes, view.format, view.ndim, view.readonly) == (nbytes, "B", 1, False)
    view[:] = b"x" * nbytes
    assert bytes(view) == b"x" * nbytes


def test_a_block_is_idle_once_its_last_view_is_gone() -> None:
    blocks = Blocks()
    view = blocks.take(MIB)
    part = view[5:6].toreadonly()
    del view
    assert blocks.idle_bytes == 0
    del part
    assert blocks.idle_bytes == MIB


def test_an_idle_block_is_used_again_for_about_the_same_size() -> None:
    blocks = Blocks()
    view = blocks.take(8 * MIB)
    view[:3] = b"old"
    del view
    assert bytes(blocks.take(7 * MIB)[:3]) == b"old"
    assert blocks.idle_bytes == 8 * MIB
    small = blocks.take(MIB)
    assert blocks.idle_bytes == 8 * MIB, "not for something much smaller"
    large = blocks.take(9 * MIB)
    assert blocks.idle_bytes == 8 * MIB, "nor for something larger"
    del small, large
    assert blocks.idle_bytes == 18 * MIB


def test_two_that_are_lent_are_never_the_same() -> None:
    blocks = Blocks()
    del (first := [blocks.take(MIB)])[:]
    views = [blocks.take(MIB) for _ in range(3)]
    for number, view in enumerate(views):
        view[:] = bytes([number]) * MIB
    assert [view[MIB - 1] for view in views] == [0, 1, 2]
    assert first == []


def test_no_more_than_the_limit_is_kept() -> None:
    blocks = Blocks(idle_bytes=4 * MIB)
    views = [blocks.take(MIB) for _ in range(6)]
    views.clear()
    assert blocks.idle_bytes == 4 * MIB
    large = blocks.take(3 * MIB)
    assert blocks.idle_bytes == 1 * MIB, "the ones of a size that is not asked for any more gave way"
    del large
    assert blocks.idle_bytes == 4 * MIB
    huge = blocks.take(5 * MIB)
    del huge
    assert blocks.idle_bytes == 0


@pytest.mark.parametrize(("nbytes", "huge"), [(7 * MIB, False), (SMALLEST_HUGE, True), (64 * MIB, True)])
def test_large_blocks_ask_for_huge_pages(nbytes: int, huge: bool) -> None:
    if not Path("/sys/kernel/mm/transparent_hugepage/enabled").exists():
        pytest.skip("this kernel has no transparent huge pages")
    view = Blocks().take(nbytes)
    address = ctypes.addressof(ctypes.c_char.from_buffer(view))
    flags = None
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if bounds := re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line):
            inside = int(bounds[1], 16) <= address < int(bounds[2], 16)
        elif line.startswith("VmFlags:") and inside:
            flags = line.split()[1:]
    assert flags is not None
    assert ("hg" in flags) is huge


def test_blocks_may_outlive_what_lent_them() -> None:
    blocks = Blocks()
    view = blocks.take(MIB)
    del blocks
    gc.collect()
    view[:] = bytes(MIB)


def test_the_last_view_may_go_in_any_thread() -> None:
    blocks = Blocks()
    for _ in range(15):
        views = [blocks.take(MIB) for _ in range(4)]
        threads = [threading.Thread(target=view.release) for view in views]
        views.clear()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        threads.clear()
        gc.collect()
        assert blocks.idle_bytes == 4 * MIB


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_freed_memory_can_be_kept() -> None:
    """In a process of its own, since it cannot be undone."""
    script = "from fed.transport.allocator import keep_freed_memory; raise SystemExit(not keep_freed_memory())"
    subprocess.run([sys.executable, "-c", script], check=True)
