"""Run by path in an environment of the matrix: makes values and encodes them, or decodes those of another one.

``encode`` writes a JSON object of what each sample became; ``decode`` reads one, and writes what each became.
"""

from __future__ import annotations

import base64
import json
import sys
import types
import warnings
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


def _without_ray() -> None:
    """Make ``fed.serde`` importable where ray is not: by a parent that imports nothing itself."""
    parent = sys.modules["fed"] = types.ModuleType("fed")
    parent.__path__ = [str(ROOT / "fed")]
    sys.path[0] = str(ROOT)


def main() -> None:
    """Do what the first argument says. A warning of what the codec does is an error."""
    _without_ray()
    from fed.serde.contract import DecodeError
    from fed.serde.data import DataCodec
    from tests.matrix.samples import SAMPLES, said

    codec = DataCodec()
    results: dict[str, Any] = {}
    if sys.argv[1] == "encode":
        for name, make in SAMPLES.items():
            try:
                value = make()
            # The package is not there, or has no such thing.
            except (ImportError, AttributeError):
                continue
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                encoded = codec.encode(value)
            parts = [base64.b64encode(bytes(part)).decode() for part in (encoded.header, *encoded.buffers)]
            results[name] = {"said": said(value), "parts": parts}
    else:
        for name, recorded in json.load(sys.stdin).items():
            header, *buffers = map(base64.b64decode, recorded["parts"])
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("error")
                    value = codec.decode(header, [memoryview(buffer) for buffer in buffers])
            except DecodeError as error:
                results[name] = str(error)
                continue
            arrived = said(value)
            results[name] = "" if arrived == recorded["said"] else f"arrived as {arrived}, not {recorded['said']}"
    json.dump(results, sys.stdout, indent=1, ensure_ascii=True)


if __name__ == "__main__":
    main()
