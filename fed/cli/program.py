"""What every party runs: a script or a module, and what may stand in its way."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import re
from collections.abc import Iterable
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import Final

import fed
from fed.errors import ConfigError

__all__ = ["Program", "find_module", "find_script", "refuse_hidden_packages"]

IMPORTED: Final = ("fed", "ray", "grpc", "cloudpickle", "optree", "msgpack", "cryptography")
"""What drivers and Ray's workers import when the script's directory comes first."""


@dataclasses.dataclass(frozen=True)
class Program:
    """What every party runs.

    Attributes:
        path: Its file, as its code names it.
        module: Its name, if it is run as a module; empty for a script.
        directory: Where it looks for other modules first.
    """

    path: str
    module: str
    directory: str

    @property
    def arguments(self) -> tuple[str, ...]:
        """What names it on the command line of a driver."""
        return ("-m", self.module) if self.module else (self.path,)

    @property
    def job(self) -> str:
        """What its job is called if nobody names it."""
        name = self.module.removesuffix(".__main__") or Path(self.path).stem
        return re.sub(r"[^A-Za-z0-9_.-]+", "-", name).lstrip("_.-")[:128] or "job"


def find_script(path: str) -> Program:
    """The script of a file.

    Raises:
        ConfigError: It cannot be read.
    """
    if Path(path).is_dir():
        raise ConfigError(f"script {path!r} is a directory")
    try:
        with Path(path).open("rb"):
            pass
    except FileNotFoundError:
        raise ConfigError(f"script {path!r} does not exist") from None
    except OSError as error:
        raise ConfigError(f"script {path!r} cannot be read: {error.strerror}") from None
    return Program(path, "", os.path.dirname(os.path.realpath(path)))  # noqa: PTH120 - a string, as Python has it


def find_module(name: str) -> Program:
    """The module of a name, or of a package the module ``__main__``, as ``python -m`` takes it; imports none.

    Raises:
        ConfigError: There is none.
    """
    directory = str(Path.cwd())
    spec = _find_spec(name, directory)
    if spec is not None and spec.submodule_search_locations is not None:
        name = f"{name}.__main__"
        spec = _find_spec(name, directory)
    if spec is None or spec.origin is None:
        hint = "; give its name with dots and without .py, as package.module" if re.search(r"/|\.py$", name) else ""
        raise ConfigError(f"module {name!r} is found neither in {directory} nor among the installed ones{hint}")
    return Program(spec.origin, name, directory)


def _find_spec(name: str, directory: str) -> ModuleSpec | None:
    top, *parts = name.split(".")
    spec = PathFinder.find_spec(top, [directory])
    if spec is None and top.isidentifier():
        spec = importlib.util.find_spec(top)
    for part in parts:
        if spec is None or spec.submodule_search_locations is None:
            return None
        spec = PathFinder.find_spec(f"{spec.name}.{part}", spec.submodule_search_locations)
    return spec


def refuse_hidden_packages(directories: Iterable[str]) -> None:
    """Refuse files that would be imported in place of what the library needs.

    The driver could do with what it has imported by then, but each of Ray's workers looks anew.

    Args:
        directories: Where the workers look first: that of the program, and the current one.

    Raises:
        ConfigError: There is one; the message names it.
    """
    ours = Path(fed.__file__)
    for directory in map(Path, directories):
        for name in IMPORTED:
            module = directory / f"{name}.py"
            if module.is_file():
                raise ConfigError(f"{module} hides the package {name}, which it is not: give it another name")
        package = directory / "fed" / "__init__.py"
        if package.is_file() and not package.samefile(ours):
            raise ConfigError(f"{package.parent} hides the package fed, which it is not: give it another name")
