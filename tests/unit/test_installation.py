"""Other distributions with a package of the same name."""

from __future__ import annotations

from pathlib import Path

import pytest

from fed.installation import OTHERS, refuse_others


@pytest.mark.parametrize("name", OTHERS)
def test_what_overwrites_the_package_is_named(name: str, tmp_path: Path) -> None:
    refuse_others(tmp_path)
    information = tmp_path / f"{name.replace('-', '_')}-0.2.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.2.0\n")
    sentence = (
        f"^{name} and fedray are installed in {tmp_path}, and each overwrites the package fed of the other: uninstall "
        rf"both \(pip uninstall {name} fedray\), then install the one that you want$"
    )
    with pytest.raises(ImportError, match=sentence):
        refuse_others(tmp_path)
