from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def generator() -> ModuleType:
    pytest.importorskip("grpc_tools")
    spec = importlib.util.spec_from_file_location("generate", ROOT / "proto" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_generated_code_is_current(generator: ModuleType) -> None:
    assert generator.main(["--check"]) == 0


def test_generated_code_that_is_not_current_is_noticed_and_replaced(
    generator: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(generator, "PACKAGE", tmp_path)
    assert generator.main(["--check"]) == 1
    assert "generated code is out of date: fed_pb2.py, fed_pb2.pyi" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
    assert generator.main([]) == 0
    assert generator.main(["--check"]) == 0
    (tmp_path / "fed_pb2.pyi").write_text("")
    assert generator.main(["--check"]) == 1
    assert "out of date: fed_pb2.pyi in" in capsys.readouterr().err


def test_another_generator_than_the_pinned_one_is_refused(
    generator: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("importlib.metadata.version", lambda _: "0.1")
    assert generator.main([]) == 1
    assert "grpcio-tools is 0.1, and pyproject.toml pins" in capsys.readouterr().err
