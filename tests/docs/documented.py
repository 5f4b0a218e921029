"""Blocks of code in the documentation, and what is known of a command without running it."""

import re
import shlex
import tomllib
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import click
from markdown_it import MarkdownIt

from pipeline.config.params import Params
from stages.cli import seed
from tests.project import PROJECT

LEFT_OUT = "…"
"""Where a page leaves something out."""
FOLDERS = ("benchmarks/", "docs/", "examples/", "params/", "pipeline/", "stages/", "tests/", "data/corpora.yaml")
"""What a page names below these is a file of the project."""


class Block(NamedTuple):
    """A fenced or an indented block."""

    language: str
    text: str
    line: int


def blocks(page: Path) -> list[Block]:
    """Return all blocks of code of a page, those in lists and quotes included."""
    tokens = MarkdownIt("commonmark").parse(page.read_text(encoding="utf-8"))
    return [
        Block(token.info.split()[0] if token.info.strip() else "", token.content, token.map[0] + 1)
        for token in tokens
        if token.type in ("fence", "code_block") and token.map
    ]


def commands(text: str) -> list[str]:
    """Return the commands of a block of shell lines, those that go over several lines in one; without comments."""
    joined = re.sub(r"\\\n\s*", "", text).splitlines()
    return [line for each in joined if (line := re.sub(r"(^|\s)#\s.*", "", each).strip())]


def quoted(page: Path) -> Iterator[str]:
    """Yield the code in the sentences and tables of a page."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    text = "\n".join(line for line in text.splitlines() if not line.startswith("    "))
    for match in re.finditer(r"`([^`]+)`", text):
        yield " ".join(match[1].split())


def wrong_with(command: str) -> str | None:
    """Return what is wrong with a command of the project, as far as that shows without running it, else None.

    Every command, option, choice, parameter, extra, target, module and file that it names must exist.
    """
    words = shlex.split(command)
    while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
        words = words[1:]
    checks = {"seed": _seed, "dvc": _dvc, "make": _make, "pip": _pip, "python": _python}
    if words and words[0] in checks and (wrong := checks[words[0]](words[1:])):
        return wrong
    for word in words:
        if word.removeprefix("./").startswith(FOLDERS) and not (PROJECT / word).exists():
            return f"no file {word}"
    return None


def _seed(words: list[str]) -> str | None:
    command: click.Command = seed
    names: list[str] = []
    while isinstance(command, click.Group) and len(names) < len(words):
        name = words[len(names)]
        if name.startswith(("-", "<", LEFT_OUT)):
            break
        found = command.get_command(click.Context(command), name)
        if found is None:
            return f"no command {' '.join(['seed', *names, name])}"
        command, names = found, [*names, name]
    options = {opt: param for param in command.params for opt in (*param.opts, *param.secondary_opts)}
    taken = iter(words[len(names) :])
    for word in taken:
        if not word.startswith("--") or word in ("--help", "--version"):
            continue
        option = options.get(word)
        if not isinstance(option, click.Option):
            return f"no option {word} of seed {' '.join(names)}"
        value = None if option.is_flag else next(taken, None)
        if isinstance(option.type, click.Choice) and value and value not in (*option.type.choices, LEFT_OUT):
            return f"{word} {value}: there are {', '.join(option.type.choices)}"
    return None


def _dvc(words: list[str]) -> str | None:
    changes = [word for before, word in pairwise(words) if before in ("-S", "--set-param")]
    for change in changes:
        if change != LEFT_OUT and not is_parameter(change.partition("=")[0].lstrip("+~")):
            return f"no parameter {change}"
    return None


def is_parameter(key: str) -> bool:
    """Return whether a dotted key is one of `params.yaml`."""
    model = Params
    *sections, last = key.split(".")
    for section in sections:
        field = model.model_fields.get(section)
        if field is None or not hasattr(field.annotation, "model_fields"):
            return False
        model = field.annotation
    return last in model.model_fields


def _make(words: list[str]) -> str | None:
    targets = set(re.findall(r"^([a-z]+):", (PROJECT / "Makefile").read_text(), flags=re.MULTILINE))
    unknown = [word for word in words if "=" not in word and word not in targets]
    return f"no target {unknown[0]}" if unknown else None


def _pip(words: list[str]) -> str | None:
    extras = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for word in words:
        for extra in re.findall(r"\[([\w,-]+)\]", word):
            if unknown := set(extra.split(",")) - set(extras):
                return f"no extra {', '.join(unknown)}"
    return None


def _python(words: list[str]) -> str | None:
    if words[:1] == ["-m"] and words[1].startswith(("benchmarks.", "stages.", "pipeline.")):
        file = PROJECT / f"{words[1].replace('.', '/')}.py"
        return None if file.exists() else f"no module {words[1]}"
    return None
