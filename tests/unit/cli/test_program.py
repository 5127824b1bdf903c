"""What is run, and what may stand in its way."""

from __future__ import annotations

from pathlib import Path

import pytest

import fed
from fed.cli.program import IMPORTED, Program, find_module, find_script, refuse_hidden_packages
from fed.errors import ConfigError


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for package in ("shop", "shop/floor", "bare", "spread"):
        (tmp_path / package).mkdir()
    for module in ("shop/__init__", "shop/train", "shop/floor/__init__", "shop/floor/__main__", "bare/__init__"):
        (tmp_path / f"{module}.py").write_text("raise RuntimeError('imported')")
    (tmp_path / "spread" / "train.py").touch()
    (tmp_path / "my script-1.py").touch()
    return tmp_path


def test_a_script_keeps_its_path_and_names_the_job(directory: Path) -> None:
    (directory / "there").symlink_to(directory / "shop")
    script = find_script("there/train.py")
    assert script == Program("there/train.py", "", str(directory / "shop"))
    assert (script.arguments, script.job) == (("there/train.py",), "train")
    assert find_script("my script-1.py").job == "my-script-1"


@pytest.mark.parametrize(
    ("name", "module", "path", "job"),
    [
        ("shop.train", "shop.train", "shop/train.py", "shop.train"),
        ("shop.floor", "shop.floor.__main__", "shop/floor/__main__.py", "shop.floor"),
        ("shop.floor.__main__", "shop.floor.__main__", "shop/floor/__main__.py", "shop.floor"),
        ("spread.train", "spread.train", "spread/train.py", "spread.train"),
    ],
)
def test_a_module_is_found_and_not_imported(name: str, module: str, path: str, job: str, directory: Path) -> None:
    program = find_module(name)
    assert program == Program(str(directory / path), module, str(directory))
    assert (program.arguments, program.job) == (("-m", module), job)


def test_an_installed_module_is_found() -> None:
    assert find_module("fed.cli").module == "fed.cli.__main__"
    assert find_module("json.tool").job == "json.tool"


@pytest.mark.parametrize(
    ("name", "shown", "hint"),
    [
        ("shop.nope", "shop.nope", ""),
        ("nope", "nope", ""),
        ("nope.train", "nope.train", ""),
        ("shop.train.more", "shop.train.more", ""),
        ("bare", "bare.__main__", ""),
        ("spread", "spread.__main__", ""),
        ("", "", ""),
        (".train", ".train", ""),
        ("shop/train.py", "shop/train.py", "; give its name with dots and without .py, as package.module"),
        ("shop.train.py", "shop.train.py", "; give its name with dots and without .py, as package.module"),
    ],
)
def test_a_module_that_there_is_not_is_refused(name: str, shown: str, hint: str, directory: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        find_module(name)
    assert str(caught.value) == f"module {shown!r} is found neither in {directory} nor among the installed ones{hint}"


@pytest.mark.parametrize("name", IMPORTED)
def test_a_file_that_would_be_imported_instead_is_refused(name: str, directory: Path) -> None:
    refuse_hidden_packages([str(directory / "shop"), str(directory)])
    (directory / f"{name}.py").touch()
    with pytest.raises(ConfigError) as caught:
        refuse_hidden_packages([str(directory / "shop"), str(directory)])
    assert str(caught.value) == f"{directory / name}.py hides the package {name}, which it is not: give it another name"


def test_a_package_that_would_be_imported_instead_is_refused(directory: Path) -> None:
    (directory / "fed").mkdir()
    # Python takes a directory for a package only where it finds no other.
    refuse_hidden_packages([str(directory)])
    (directory / "fed" / "__init__.py").touch()
    with pytest.raises(ConfigError, match=f"^{directory / 'fed'} hides the package fed, which it is not: give it"):
        refuse_hidden_packages([str(directory)])
    # Where the package itself lies there is nothing else.
    refuse_hidden_packages([str(Path(fed.__file__).parents[1])])
