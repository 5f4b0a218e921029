"""Write `parameters.md` from `params.yaml`, the models of `pipeline/config`, and `dvc.yaml`."""

import ast
import inspect
import re
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined
from ruamel.yaml import YAML

from pipeline.config.params import Params
from pipeline.utils.validation import OneOf

PROJECT = Path(__file__).parent.parent
PAGE = PROJECT / "docs/parameters.md"

HEAD = """# Parameters

<!-- Made by `python docs/parameters.py` from params.yaml, pipeline/config/ and dvc.yaml: edit those. -->

All parameters of [params.yaml](../params.yaml). An unknown key or an invalid value stops a command at once, with one
line that names it. `dvc exp run -S train.network.blocks=3` runs the pipeline with another value and keeps the result.

"Reruns" lists the stages that DVC runs again when the parameter changes ([dvc.yaml](../dvc.yaml)). Later stages follow
if their inputs have changed. "New ones" are stages that DVC adds for each new entry; existing ones stay. A parameter
that reruns nothing changes no result. Commands that you run by hand read `params.yaml` in the working folder, or the
file that `--params` names. Options such as `--seed` and `--draws` override it.

More about views and conditions: [data.md](data.md#views-and-conditions). Front-ends of encoder files:
[encoders.md](encoders.md#a-file-onnx-or-torchscript). Training and enhancement: [training.md](training.md). Systems:
[backends.md](backends.md). The paper's values: [params/paper.yaml](../params/paper.yaml).
"""

UNITS = {
    "manifest.max_speakers": "speakers",
    "manifest.max_utterances": "utterances",
    "extract.draws": "crops",
    "extract.frames": "frames of 10 ms",
    "extract.eval_crops": "crops",
    "extract.eval_frames": "frames of 10 ms",
    "extract.shard": "utterances",
    "extract.batch": "utterances",
    "extract.workers": "threads or processes",
    "extract.prefetch": "threads",
    "extract.max_failures": "utterances",
    "encoder.<name>.min_samples": "samples at 16 kHz",
    "train.network.blocks": "blocks",
    "train.network.width": "embedding dimensions",
    "train.noisy_views": "views",
    "train.swap": "share",
    "train.timesteps": "timesteps",
    "train.max_timestep": "timesteps",
    "train.batch_size": "pairs",
    "train.warmup": "epochs",
    "train.max_epochs": "epochs",
    "train.patience": "epochs",
    "train.validation": "share",
    "train.strength": "share",
    "train.folds": "folds",
    "train.memory": "GB",
    "train.threads": "threads",
    "train.save_every": "steps",
    "train.keep_every": "epochs",
    "enhance.timestep": "timesteps",
    "enhance.steps": "steps",
    "enhance.noise": "draws",
    "enhance.strength": "share",
    "score.max_left_out": "trials",
    "score.max_trials": "trials",
    "score.bootstrap": "resamples",
    "score.cohort.size": "utterances or speakers",
    "score.groups": "years, seconds",
    "score.systems.<name>.ensemble": "share",
    "score.systems.<name>.top": "scores",
    "quality.max_missing": "share",
    "quality.max_failed": "share",
    "quality.max_broken": "share",
    "quality.max_duplicates": "share",
    "quality.duplicate_cosine": "cosine",
    "quality.max_cosine": "cosine",
    "quality.max_clipped": "share",
    "quality.max_upsampled": "share",
    "quality.rows": "utterances",
    "quality.files": "recordings",
}

ALLOWED = {"train.noisy_views": "whole number ≥ 1, list of names, or null"}
"""Allowed values of parameters that a function validates, not a type."""


class Parameter(NamedTuple):
    """A row of the page."""

    key: str
    default: str
    meaning: str
    allowed: str


def read_parameters() -> list[Parameter]:
    """Return all parameters in the order of the models."""
    comments = read_comments((PROJECT / "params.yaml").read_text(encoding="utf-8"))
    values = YAML(typ="safe", pure=True).load((PROJECT / "params.yaml").read_text(encoding="utf-8"))
    return list(walk(Params, "", values, comments))


def walk(model: type[BaseModel], prefix: str, values: Any, comments: dict[str, str]) -> Iterator[Parameter]:
    """Yield the parameters of a model and of the models nested in it."""
    descriptions = docstrings(model)
    for name, field in model.model_fields.items():
        key = prefix + name
        value = values.get(name, PydanticUndefined) if isinstance(values, dict) else PydanticUndefined
        inner, many = nested_model(field.annotation)
        if inner and not many:
            yield from walk(inner, f"{key}.", value, comments)
            continue
        meaning = comments.get(key) or descriptions.get(name, "")
        allowed = ALLOWED.get(key) or describe_type(field.annotation, list(field.metadata))
        yield Parameter(key, format_default(field, value), meaning, allowed)
        if inner:
            yield from walk(inner, f"{key}{many}.", None, comments)


def nested_model(annotation: Any) -> tuple[type[BaseModel] | None, str]:
    """Return the model that a field holds, if any, and the key suffix of its entries if it holds many."""
    if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
        return annotation, ""
    arguments = get_args(annotation)
    if get_origin(annotation) in (dict, list) and inspect.isclass(arguments[-1]):
        inner = arguments[-1] if issubclass(arguments[-1], BaseModel) else None
        return inner, ".<name>" if get_origin(annotation) is dict else "[]"
    return None, ""


def format_default(field: FieldInfo, value: Any) -> str:
    """Return the value in `params.yaml`, or the default of the model, as text."""
    if value is PydanticUndefined:
        value = field.get_default(call_default_factory=True)
    if value is PydanticUndefined:
        return "must be given"
    if isinstance(value, dict | list) and any(isinstance(each, dict | list) for each in _values(value)):
        return "see params.yaml"
    if isinstance(value, list):
        return f"`[{', '.join(map(str, value))}]`"
    return f"`{'null' if value is None else str(value).lower() if isinstance(value, bool) else value}`"


def _values(value: dict[str, Any] | list[Any]) -> list[Any]:
    return list(value.values()) if isinstance(value, dict) else value


def describe_type(annotation: Any, bounds: list[Any]) -> str:
    """Return the values that a type and its bounds allow as text."""
    if get_origin(annotation) is Annotated:
        kind, *more = get_args(annotation)
        return describe_type(kind, [*more, *bounds])
    if get_origin(annotation) in (Union, types.UnionType):
        kinds = [kind for kind in get_args(annotation) if kind is not type(None)]
        texts = list(dict.fromkeys(describe_type(kind, bounds) for kind in kinds))
        return ", or ".join([*texts, *(["null"] if len(kinds) < len(get_args(annotation)) else [])])
    if get_origin(annotation) is Literal:
        return ", ".join(f"`{value}`" for value in get_args(annotation))
    for bound in bounds:
        if isinstance(bound, OneOf):
            return ", ".join(f"`{name}`" for name in bound.list_names())
    if get_origin(annotation) is list:
        return f"list of {describe_type(get_args(annotation)[0], [])}{',' * bool(bounds)}{describe_bounds(bounds)}"
    if get_origin(annotation) is dict:
        return "entries by name"
    if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
        return "its settings"
    names = {int: "whole number", float: "number", str: "text", bool: "`true`, `false`"}
    return f"{names[annotation]}{describe_bounds(bounds)}"


def describe_bounds(bounds: list[Any]) -> str:
    """Return bounds as text, such as ` ≥ 0, < 1`."""
    signs = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
    texts = []
    for bound in bounds:
        ends = {sign: getattr(bound, name) for name, sign in signs.items() if hasattr(bound, name)}
        texts += [f" {sign} {'2^63' if end == 2**63 else format(end, 'g')}" for sign, end in ends.items()]
        if getattr(bound, "pattern", None):
            texts.append(f" like `{bound.pattern}`")
        if getattr(bound, "min_length", None):
            texts.append(f" {bound.min_length} or more")
    return ",".join(texts)


def read_comments(text: str) -> dict[str, str]:
    """Return the comment of each key of a YAML file: the one above, without its indented lines, and the one beside."""
    comments: dict[str, str] = {}
    above: list[str] = []
    path: list[tuple[int, str]] = []
    for line in text.splitlines():
        if remark := re.fullmatch(r"\s*#(.*)", line):
            above += [remark[1].strip()] if re.match(r" \S", remark[1]) else []
        elif entry := re.fullmatch(r"(\s*)([\w-]+):(?: .*?)??(?:\s+# (.*))?", line):
            indent = len(entry[1])
            path = [*(each for each in path if each[0] < indent), (indent, entry[2])]
            text = " ".join([*above, *([entry[3]] if entry[3] else [])])
            comments[".".join(name for _, name in path)] = text
            above = []
        else:
            above = []
    return comments


def docstrings(model: type[BaseModel]) -> dict[str, str]:
    """Return the docstring below each field of a model."""
    body = ast.parse(inspect.getsource(model)).body[0]
    assert isinstance(body, ast.ClassDef)
    return {
        field.target.id: " ".join(inspect.cleandoc(text.value.value).split())
        for field, text in zip(body.body, body.body[1:], strict=False)
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        if isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant) and isinstance(text.value.value, str)
    }


def stages() -> dict[str, Any]:
    """Return the stages of `dvc.yaml` in the order in which data flows through them."""
    content = YAML(typ="safe", pure=True).load((PROJECT / "dvc.yaml").read_text(encoding="utf-8"))
    return dict(content["stages"])


def reruns(key: str) -> str:
    """Return the stages that run again when a parameter changes."""
    again, added = [], []
    for name, stage in stages().items():
        watched = [each.replace("${item.encoder}", "<name>") for each in stage["params"] if isinstance(each, str)]
        if any(f"{key}.".startswith(f"{each}.") for each in watched) or f"${{{key}}}" in stage["cmd"]:
            again.append(name)
        elif f"${{{key}}}" in stage.get("matrix", {}).values():
            added.append(name)
    return "; ".join(filter(None, [", ".join(again), f"new ones: {', '.join(added)}" if added else ""])) or "nothing"


def render() -> str:
    """Return the page."""
    lines, section = [HEAD.rstrip()], ""
    for each in read_parameters():
        first = each.key.split(".")[0]
        title = first if "." in each.key and first != "encoder" else "corpus, encoders, conditions"
        if title != section:
            lines += ["", f"## {title}", "", "| parameter | default | meaning | unit | allowed | reruns |"]
            lines.append("|---" * 6 + "|")
            section = title
        meaning = each.meaning[:1].upper() + each.meaning[1:].removesuffix(".").replace("<", "&lt;")
        meaning = re.sub(r"docs/(\w+\.md)", r"[\1](\1)", meaning)
        row = (f"`{each.key}`", each.default, meaning, UNITS.get(each.key, ""), each.allowed, reruns(each.key))
        lines.append("| " + " | ".join(cell.replace("|", r"\|").strip() for cell in row) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
