from __future__ import annotations

from typing import Any

import msgpack
import numpy as np
import pytest

from fed.serde.contract import DecodeError, EncodeError
from fed.serde.tags import Tag
from tests.support.values import CODEC, roundtrip

sp: Any = pytest.importorskip("scipy.sparse", reason="scipy is not installed")

DENSE: Any = np.array([[0, 1.5, 0, 2], [3, 0, 0, 0]])
CLASSES = [getattr(sp, f"{form}_{kind}") for form in ("csr", "csc", "bsr", "coo") for kind in ("matrix", "array")]


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
@pytest.mark.parametrize(
    "dense",
    [DENSE, DENSE.astype("int8"), DENSE + 1j, DENSE > 0, np.zeros((2, 2)), np.zeros((0, 4)), np.zeros((4, 0))],
    ids=lambda dense: f"{dense.dtype}{dense.shape}",
)
def test_a_sparse_array_arrives_as_it_was(cls: Any, dense: Any) -> None:
    if "bsr" in cls.__name__ and not dense.size:
        pytest.skip("scipy makes no blocks of nothing")
    sparse = cls(dense)
    arrived = roundtrip([sparse])[0]
    assert type(arrived) is cls
    assert (arrived.dtype, arrived.shape, arrived.nnz) == (sparse.dtype, sparse.shape, sparse.nnz)
    np.testing.assert_array_equal(arrived.toarray(), dense)
    if dense.size:
        np.testing.assert_array_equal((arrived @ arrived.T).toarray(), (sparse @ sparse.T).toarray())


def test_blocks_and_entries_that_repeat_arrive_as_they_were() -> None:
    blocks = sp.bsr_array(np.kron(np.eye(2), np.ones((2, 3))), blocksize=(2, 3))
    assert roundtrip(blocks).blocksize == (2, 3)
    repeated = sp.coo_array(([1, 2], ([0, 0], [1, 1])), shape=(2, 2))
    assert roundtrip(repeated).nnz == 2
    assert roundtrip(repeated).toarray()[0, 1] == 3


def test_what_lies_behind_the_last_entry_does_not_leave() -> None:
    sparse = sp.csr_array((np.array([1.0, 2.0]), np.array([0, 1]), np.array([0, 1, 1])), shape=(2, 2))
    assert sparse.nnz == 1
    assert CODEC.encode(sparse).buffers[0].nbytes == 8
    assert roundtrip(sparse).toarray().tolist() == sparse.toarray().tolist()


def test_memory_is_not_copied() -> None:
    sparse = sp.csr_array(DENSE)
    assert np.shares_memory(np.asarray(CODEC.encode(sparse).buffers[0]), sparse.data)
    assert CODEC.decode(*CODEC.encode(sparse)).copy().data.flags.writeable


@pytest.mark.parametrize("form", ["dok", "lil", "dia"])
def test_other_forms_are_refused_and_the_way_out_works(form: str) -> None:
    sparse = getattr(sp, f"{form}_array")(DENSE)
    with pytest.raises(EncodeError, match=r"send value\.tocsr\(\)"):
        CODEC.encode(sparse)
    np.testing.assert_array_equal(roundtrip(sparse.tocsr()).toarray(), DENSE)


def _forged(*parts: Any) -> Any:
    tree = [msgpack.ExtType(Tag.SPARSE, b""), *(_of(part) for part in parts)]
    return msgpack.packb(tree), [memoryview(part.tobytes()) for part in parts if isinstance(part, np.ndarray)]


def _of(part: Any) -> Any:
    if not isinstance(part, np.ndarray):
        return part
    return [msgpack.ExtType(Tag.NUMPY_ARRAY, b""), part.dtype.str, "C", False, *part.shape]


def _ints(*numbers: int) -> Any:
    return np.array(numbers, np.int32)


DATA: Any = np.ones(2)


def test_the_forged_array_is_good_unless_changed() -> None:
    arrived = CODEC.decode(*_forged("csr_array", [2, 3], DATA, _ints(0, 2), _ints(0, 1, 2)))
    assert arrived.toarray().tolist() == [[1, 0, 0], [0, 0, 1]]


@pytest.mark.parametrize(
    "parts",
    [
        ("csr_array", [2, 3], DATA, _ints(0, 3), _ints(0, 1, 2)),
        ("csr_array", [2, 3], DATA, _ints(0, -1), _ints(0, 1, 2)),
        ("csr_array", [2, 3], DATA, _ints(0, 2), _ints(0, 3, 2)),
        ("csr_array", [2, 3], DATA, _ints(0, 2), _ints(0, 1, 1)),
        ("csr_array", [2, 3], DATA, _ints(0, 2), _ints(1, 1, 2)),
        ("csr_array", [2, 3], DATA, _ints(0, 2), _ints(0, 2)),
        ("csr_array", [2, 3], DATA, _ints(0), _ints(0, 1, 2)),
        ("csr_array", [2, 3], DATA, _ints(0, 2).astype(float), _ints(0, 1, 2)),
        ("csr_array", [2, 3], DATA, _ints(0, 2), None),
        ("csr_array", [2, 3], DATA, _ints(0, 2)),
        ("csr_array", [2, -3], DATA, _ints(0, 2), _ints(0, 1, 2)),
        ("csr_array", [2], DATA, _ints(0, 2), _ints(0, 1, 2)),
        ("csr_array", [], DATA, _ints(0, 2), _ints(0, 1, 2)),
        ("csr_array", 2, DATA, _ints(0, 2), _ints(0, 1, 2)),
        ("csr_array", [2, 3], [1.0, 1.0], _ints(0, 2), _ints(0, 1, 2)),
        ("csr_array", [2, 3], np.array(["a", "b"]), _ints(0, 2), _ints(0, 1, 2)),
        ("csr_array", [2, 3], DATA.reshape(1, 2), _ints(0), _ints(0, 1, 1)),
        ("bsr_array", [2, 3], DATA.reshape(1, 1, 2), _ints(0), _ints(0, 1, 1)),
        ("bsr_array", [2, 2], DATA.reshape(1, 1, 2), _ints(1), _ints(0, 1, 1)),
        ("coo_array", [2, 3], DATA, _ints(0, 2), _ints(0, 1)),
        ("coo_array", [2, 3], DATA, _ints(0, 1), _ints(0, 3)),
        ("coo_array", [2, 3], DATA, _ints(0, 1)),
        ("coo_array", [2, 3], DATA, _ints(0, 1), _ints(0)),
        ("dok_array", [2, 3], DATA, _ints(0, 1), _ints(0, 1)),
        (None, [2, 3], DATA, _ints(0, 1), _ints(0, 1)),
        ("csr_array",),
    ],
    ids=range(26),
)
def test_no_index_points_outside(parts: Any) -> None:
    with pytest.raises(DecodeError, match=r"a sparse array|ValueError"):
        CODEC.decode(*_forged(*parts))
