"""What parties with other releases of the packages sent, and what one without a package makes of it."""

from __future__ import annotations

import base64
import importlib.util
import json
import pathlib
import subprocess
import sys
from typing import Any

import msgpack
import numpy as np
import pandas as pd
import pytest

from fed.serde import columns
from fed.serde.contract import DecodeError, EncodeError
from fed.serde.packages import OLDEST
from fed.serde.tags import Tag
from tests.matrix import child
from tests.matrix.samples import SAMPLES, said
from tests.support.values import CODEC, roundtrip

RECORDED = pathlib.Path(__file__).with_name("recorded")
SENT = {
    f"{path.stem}: {name}": sample
    for path in sorted(RECORDED.glob("*.json"))
    for name, sample in json.loads(path.read_text(encoding="utf-8")).items()
}


def _decode(sample: dict[str, Any]) -> Any:
    header, *buffers = map(base64.b64decode, sample["parts"])
    return CODEC.decode(header, [memoryview(buffer) for buffer in buffers])


def test_there_are_values_of_several_releases() -> None:
    assert len({name.partition(":")[0] for name in SENT}) > 3
    assert {name.partition(": ")[2] for name in SENT} == set(SAMPLES)


@pytest.mark.parametrize("name", SENT)
def test_what_other_releases_sent_says_the_same_here(name: str) -> None:
    if "polars" in name:
        pytest.importorskip("polars", reason="polars is not installed: make test-matrix tests it")
    assert said(_decode(SENT[name])) == SENT[name]["said"]


PRELUDE = """
import runpy, sys
sys.modules[sys.argv[2]] = None
runpy.run_path(sys.argv[3], run_name="__main__")
"""


def _refused_without(package: str) -> dict[str, str]:
    """What a process in which a package cannot be imported says of the samples that this one encodes."""
    samples = {}
    for name, make in SAMPLES.items():
        if "polars" not in name:
            value = make()
            encoded = CODEC.encode(value)
            parts = [base64.b64encode(bytes(part)).decode() for part in (encoded.header, *encoded.buffers)]
            samples[name] = {"said": said(value), "parts": parts}
    command = [sys.executable, "-c", PRELUDE, "decode", package, child.__file__]
    done = subprocess.run(command, input=json.dumps(samples), capture_output=True, text=True, check=True)
    return {name: text for name, text in json.loads(done.stdout).items() if text}


def test_without_pyarrow_all_arrives_but_what_only_arrow_has() -> None:
    sentence = f"the value holds a pyarrow object: it needs pyarrow {OLDEST['pyarrow']} or later, not installed here"
    assert _refused_without("pyarrow") == {"Arrow table": sentence, "series of date32[pyarrow]": sentence}


def test_without_scipy_it_is_named() -> None:
    sentence = f"the value holds a scipy object: it needs scipy {OLDEST['scipy']} or later, not installed here"
    assert set(_refused_without("scipy").values()) == {sentence}


@pytest.mark.parametrize(("tag", "package"), [(Tag.TORCH_TENSOR, "torch"), (Tag.POLARS, "polars")])
def test_a_package_that_is_not_installed_is_named(tag: Tag, package: str) -> None:
    if importlib.util.find_spec(package) is not None:
        pytest.skip(f"{package} is installed")
    with pytest.raises(DecodeError) as caught:
        CODEC.decode(msgpack.packb([msgpack.ExtType(tag, b"")]), [])
    sentence = f"the value holds a {package} object: it needs {package} {OLDEST[package]} or later, not installed here"
    assert str(caught.value) == sentence


def test_a_pandas_without_a_dtype_of_texts_that_miss_as_nan_gets_objects(monkeypatch: pytest.MonkeyPatch) -> None:
    encoded = CODEC.encode(pd.Series(["a", None], dtype="str"))
    assert CODEC.decode(*encoded).dtype == pd.StringDtype(na_value=np.nan)
    monkeypatch.setattr(columns, "_KNOWS_MISSING_AS_NAN", False)
    arrived = CODEC.decode(*encoded)
    assert arrived.dtype == object
    assert arrived.tolist()[0] == "a"
    assert np.isnan(arrived.tolist()[1])


def test_a_numpy_without_a_dtype_of_texts_gets_objects(monkeypatch: pytest.MonkeyPatch) -> None:
    array = SAMPLES["array of StringDType"]()
    encoded = CODEC.encode(array)
    assert roundtrip(array).dtype == array.dtype
    monkeypatch.delattr("numpy.dtypes.StringDType")
    arrived = CODEC.decode(*encoded)
    assert arrived.dtype == object
    assert arrived.tolist() == array.tolist()


def test_a_package_that_is_too_old_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any, **kwargs: Any) -> Any:
        raise TypeError("unexpected keyword")

    encoded = CODEC.encode(pd.Series([1]))
    monkeypatch.setattr("pandas.Series", fail)
    with pytest.raises(DecodeError, match=r"pandas [0-9.]+, installed here, cannot handle it: TypeError: unexpected k"):
        CODEC.decode(*encoded)
    monkeypatch.setattr("fed.serde.packages._version_of", lambda name: "1.5.3")
    with pytest.raises(DecodeError, match=r"it needs pandas 2.2 or later, 1.5.3 is installed here"):
        CODEC.decode(*encoded)


def test_the_bytes_inside_of_a_column_are_not_the_fault_of_pandas() -> None:
    column = [msgpack.ExtType(Tag.PANDAS_ARRAY, b""), "object", [[msgpack.ExtType(Tag.UUID, b""), b"short"]]]
    with pytest.raises(DecodeError, match=r"^malformed bytes: ValueError"):
        CODEC.decode(msgpack.packb(column), [])


def test_the_oldest_releases_are_those_that_the_tests_ask_for() -> None:
    text = (child.ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for name in ("numpy", "pandas", "pyarrow"):
        assert f'"{name}>={OLDEST[name]}"' in text


def test_a_failure_beside_a_package_that_is_too_old_tells_both(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(values: Any) -> Any:
        raise AttributeError("no such thing")

    monkeypatch.setattr("fed.serde.tables.column", fail)
    with pytest.raises(EncodeError, match=r"^cannot encode Series: AttributeError: no such thing$"):
        CODEC.encode(pd.Series([1]))
    monkeypatch.setattr("fed.serde.packages._version_of", lambda name: "2.0.3")
    with pytest.raises(
        EncodeError, match=r"no such thing \(pandas 2.0.3 is installed here, and the oldest that is tried"
    ):
        CODEC.encode(pd.Series([1]))


def test_an_unencodable_value_of_an_old_package_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(package: Any) -> Any:
        raise AttributeError("module 'pandas.arrays' has no attribute 'NumpyExtensionArray'")

    monkeypatch.setattr("fed.serde.packages._rules_of", fail)
    monkeypatch.setattr("fed.serde.packages._version_of", lambda name: "2.0.3")
    from fed.serde.data import DataCodec

    with pytest.raises(EncodeError, match=r"it needs pandas 2.2 or later, 2.0.3 is installed here"):
        DataCodec().encode(pd.Series([1]))
