"""Write the Python code of ``fed.proto`` into the package, or check that what is there is current.

Usage::

    python proto/generate.py            # regenerate in place
    python proto/generate.py --check    # exit 1 if regenerating would change anything

The generator is the version of grpcio-tools that the ``dev`` extra pins: an older one, because generated code runs
on protobuf runtimes at least as new as its generator, never on older ones.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import re
import sys
import tempfile
from pathlib import Path

from grpc_tools import protoc

SOURCES = Path(__file__).resolve().parent
PACKAGE = SOURCES.parent / "fed" / "transport" / "v1"
PROTO = Path("fed", "v1", "fed.proto")


def wrong_version() -> str | None:
    """A sentence about the installed generator, if it is not the pinned one."""
    pinned = re.search(r"grpcio-tools==([0-9.]+)", (SOURCES.parent / "pyproject.toml").read_text())
    installed = importlib.metadata.version("grpcio-tools")
    if pinned is None or installed == pinned[1]:
        return None
    return (
        f"grpcio-tools is {installed}, and pyproject.toml pins {pinned[1]}; run `pip install grpcio-tools=={pinned[1]}`"
    )


def generate(target: Path) -> dict[str, bytes]:
    """Run the generator with `target` as its output directory.

    Returns:
        The generated files' contents by name.

    Raises:
        RuntimeError: The generator failed; it has printed why.
    """
    arguments = ["protoc", f"-I{SOURCES}", f"--python_out={target}", f"--pyi_out={target}", str(SOURCES / PROTO)]
    if protoc.main(arguments) != 0:
        raise RuntimeError(f"the generator failed on {PROTO}")
    return {path.name: path.read_bytes() for path in sorted((target / PROTO.parent).iterdir())}


def main(argv: list[str] | None = None) -> int:
    """Regenerate or check; returns the exit code."""
    parser = argparse.ArgumentParser(description="Generate fed/transport/v1 from proto/fed/v1/fed.proto.")
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 if anything would change")
    check: bool = parser.parse_args(argv).check
    if (sentence := wrong_version()) is not None:
        sys.stderr.write(f"{sentence}\n")
        return 1
    with tempfile.TemporaryDirectory() as directory:
        generated = generate(Path(directory))
    stale = [
        name
        for name, content in generated.items()
        if not (PACKAGE / name).exists() or (PACKAGE / name).read_bytes() != content
    ]
    if not check:
        for name in stale:
            (PACKAGE / name).write_bytes(generated[name])
        return 0
    if stale:
        sys.stderr.write(
            f"generated code is out of date: {', '.join(stale)} in fed/transport/v1 differ from what "
            "proto/fed/v1/fed.proto generates; run `python proto/generate.py` and commit the result\n"
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
