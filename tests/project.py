"""A clone of the project on a cut-down demo, run through DVC."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple, TypeVar

from ruamel.yaml import YAML

from tests.warm import warm_seed

PROJECT = Path(__file__).parent.parent
ENDURANCE = "SEED_ENDURANCE" in os.environ
"""Whether tests marked so do all that they can; `make endurance` sets it."""
T = TypeVar("T")
CONDITIONS = ["clean", "noise0"]

MINI = """
mini:
  title: synthetic voices of espeak-ng, a few
  licence: made here
  origin:
    synthesis: {train_voices: 10, test_voices: 6, babble_voices: 3, utterances: 3, background: 0.05}
  speaker: '([^/]+)/[^/]+$'
  train: {speech: train/*/*.flac, noise: train/*.flac, music: train/*.flac, rooms: train/*.wav, babble: train/*/*.flac}
  test: {speech: test/*/*.flac, noise: test/*.flac, music: test/*.flac, rooms: test/*.wav, babble: babble/*/*.flac}
"""


def few_or_many(few: T, many: T) -> T:
    """Return the first value, or the second one where tests have all the time they want."""
    return many if ENDURANCE else few


def surroundings() -> dict[str, str]:
    """Return the environment, without what says that `make` and pytest are at work, which a command may start anew."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "PYTEST"))}


class Project:
    """A clone of the project with its own parameters, run through DVC."""

    def __init__(self, folder: Path, source: Path | None = None) -> None:
        """Make a new one, or a copy of one that has done something; with the times of files, which DVC goes by."""
        self.folder = folder
        if source:
            shutil.copytree(source, folder, symlinks=True)
            return
        (folder / "data").mkdir(parents=True)
        shutil.copy(PROJECT / "dvc.yaml", folder)
        shutil.copytree(PROJECT / "pipeline", folder / "pipeline", ignore=shutil.ignore_patterns("__pycache__"))
        (folder / "data/corpora.yaml").write_text((PROJECT / "data/corpora.yaml").read_text() + MINI)
        params = YAML(typ="safe").load((PROJECT / "params.yaml").read_text())
        params |= {"corpus": ["mini"], "conditions": CONDITIONS, "sets": ["train", *CONDITIONS]}
        params["extract"] |= {"draws": 1, "shard": 8, "eval_crops": 2}
        params["train"] |= {"max_epochs": 4, "batch_size": 32}
        params["score"] |= {"bootstrap": 20}
        self.write(params)
        self.call("git", "init", "-q")
        self.call("dvc", "init", "-q")

    def write(self, params: dict) -> None:
        with (self.folder / "params.yaml").open("w") as file:
            YAML(typ="safe").dump(params, file)

    def read(self) -> dict:
        return YAML(typ="safe").load((self.folder / "params.yaml").read_text())

    def change(self, section: str, **values: object) -> None:
        params = self.read()
        params[section] |= values
        self.write(params)

    def call(self, *command: str, **environment: str) -> str:
        path = os.pathsep.join(map(str, (warm_seed(), Path(sys.executable).parent, os.environ["PATH"])))
        environment = {**surroundings(), "PATH": path, "DVC_NO_ANALYTICS": "1", **environment}
        done = subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return done.stdout

    def install(self) -> None:
        """Make it look as if `make` had installed the packages, so that it goes on from there."""
        for name in ("Makefile", "pyproject.toml", "constraints.txt"):
            shutil.copy(PROJECT / name, self.folder)
        (self.folder / ".venv/bin").mkdir(parents=True)
        for path in [*Path(sys.prefix).glob("bin/*"), Path(sys.prefix) / "lib", Path(sys.prefix) / "pyvenv.cfg"]:
            source = warm_seed() / path.name if path.name in ("dvc", "seed") else path
            (self.folder / ".venv" / path.relative_to(sys.prefix)).symlink_to(source)
        for name in (".installed", ".installed-dev"):
            (self.folder / ".venv" / name).touch()

    def changed(self) -> list[str]:
        """Return the stages whose dependencies or parameters have changed."""
        return list(json.loads(self.call("dvc", "status", "--json")))

    def repro(self, *command: str) -> list[str]:
        """Run `dvc repro`, or a command that does so, and return the stages that did work."""
        return re.findall(r"Running stage '(.+)'", self.call(*(command or ("dvc", "repro"))))


class FirstRun(NamedTuple):
    """A project whose pipeline has run once; take a copy to do more with it."""

    folder: Path
    stages: list[str]
