"""Register a plugin written in one file, as an installed package would."""

from pathlib import Path

import pytest


def install_plugin(
    folder: Path, monkeypatch: pytest.MonkeyPatch, kind: str, name: str, module: str, source: str
) -> None:
    """Write a module and the metadata that register its attribute `PLUGIN`, and put both on the path.

    Args:
        folder: an empty folder.
        monkeypatch: undoes the change of the path.
        kind: encoders, corruptions, objectives or formats.
        name: what parameter files and options call it.
        module: the name of the module, unique among all tests.
        source: its code.
    """
    info = folder / f"{module}-1.0.dist-info"
    info.mkdir(parents=True)
    (folder / f"{module}.py").write_text(source)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[speaker_seed.{kind}]\n{name} = {module}:PLUGIN\n")
    monkeypatch.syspath_prepend(str(folder))
