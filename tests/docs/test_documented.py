"""What the documentation shows is run, line by line, or there is a reason why not; and all that it names exists."""

import importlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import soundfile
import torch
from ruamel.yaml import YAML
from s3fs import S3FileSystem
from torch.nn.functional import normalize

from pipeline.model.enhancer import Enhancer
from pipeline.store.embedding_store import EmbeddingStore
from pipeline.store.schema import OK
from pipeline.store.writer import write_store
from stages.cli import main
from tests.docs.documented import Block, blocks, commands, quoted, wrong_with
from tests.model.test_convert import checkpoint, vectors
from tests.project import CONDITIONS, ENDURANCE, PROJECT, FirstRun, Project, surroundings
from tests.s3_server import S3Server
from tests.warm import warm_seed

PAGES = sorted([PROJECT / "README.md", *(PROJECT / "docs").glob("*.md")])
RUN = (
    "README.md",
    "docs/quickstart.md",
    "docs/recipes.md",
    "docs/api.md",
    "docs/systems.md",
    "docs/deploy.md",
    "docs/adaptation.md",
    "docs/try.md",
    "docs/index.md",
)
"""Pages whose blocks are run, from the first to the last, in a project whose pipeline has run."""

SHELL = ("", "sh", "bash", "console")
PICTURES = {
    "fetch ─ manifest ─ extract ─ train ─ enhance ─ score ─ report",
    "40 recordings, EER in % [95 % interval]",
}
"""First lines of blocks that are no code."""
FILES = {"encoders: [ge2e, own]": "params.yaml", "mine:": "data/corpora.yaml"}
"""First lines of YAML blocks, and the file that the page says they belong in."""
ENVIRONMENT = ("SEED_DATA",)
"""What pages export."""
FOLDER_OF_CORPORA = "<folder of the corpora>"
EXPERIMENT = f"SEED_DATA={FOLDER_OF_CORPORA} dvc exp run -S 'corpus=[speechocean762]' -S 'encoders=[ge2e,campplus]'"

NOT_RUN = {
    EXPERIMENT: "needs recordings that are not part of the project; `test_the_experiment_of_the_readme_runs` has a few",
    "dvc repro": "after another encoder or corpus, all of the pipeline again; tests/test_pipeline.py does that",
    "dvc exp run -S 'corpus=[mine]'": "all of the pipeline again; the same stages run by hand below it",
    "seed corpus check paper": "needs recordings behind licences; tests/stages/test_paper.py runs it on a tiny tree",
    "seed trials vcmix": "needs recordings behind licences; tests/stages/test_paper.py runs it on a tiny tree",
    "seed try my/recordings --encoder ge2e": "needs twenty recordings; tests/stages/test_try.py has them",
    "seed adapt my/recordings --encoder ge2e --out adapted.safetensors": "needs recordings; tests/stages/test_adapt.py",
    "python -m benchmarks.transfer --work <folder> --encoder ge2e": "trains 36 models",
    "python -m benchmarks.transfer --work <folder> --encoder campplus": "trains 36 models",
    "seed train --store a/train.zarr --manifest a/train.csv --store b/train.zarr --manifest b/train.csv"
    " --out seed.safetensors": "needs two corpora; tests/training/test_aligned_stores.py trains on two",
    "cp params/paper.yaml params.yaml": "would leave the demo; tests/stages/test_paper.py runs with these parameters",
    "make test": "runs the tests; continuous integration runs it",
    "pip install -e '.[cluster]'": "installs packages",
    "pip install -e '.[remote]'": "installs packages",
    "seed extract --manifest test.csv --encoder ge2e --scheduler tcp://localhost:8786 --out test.zarr": "needs a"
    " scheduler; tests/extraction/test_cluster.py extracts on one",
    "dask scheduler --port 8786": "runs until it is stopped; tests/extraction/test_cluster.py has such a cluster",
    "dask worker tcp://localhost:8786 --nworkers 8 --nthreads 1": "runs until it is stopped, as above",
    "seed extract --encoder ge2e --manifest data/manifests/clean.csv --scheduler tcp://localhost:8786"
    " --out my/clean3.zarr": "needs the scheduler above; tests/extraction/test_cluster.py extracts on one",
}
"""Lines that are not run, and why; what they name is looked at all the same."""


@pytest.fixture
def place(first_run: FirstRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project as the quick start leaves it, smaller; with the recordings and the list that a reader would have."""
    project = Project(tmp_path / "project", first_run.folder)
    for name in ("examples", "params"):
        shutil.copytree(PROJECT / name, project.folder / name, ignore=shutil.ignore_patterns("build", "*.egg-info"))
    shutil.copy(PROJECT / ".gitignore", project.folder)
    project.call("git", "add", "-A")
    project.call("git", "-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "quick start")
    monkeypatch.chdir(project.folder)
    for name in [*ENVIRONMENT, *(name for name in os.environ if name.startswith("AWS_"))]:
        monkeypatch.setenv(name, "")  # so that what a page exports goes again
        monkeypatch.delenv(name)
    # What a page installs goes to a folder of its own, without asking a network.
    packages = tmp_path / "packages"
    given = {"TARGET": packages, "NO_DEPS": 1, "NO_INDEX": 1, "NO_BUILD_ISOLATION": 0, "DISABLE_PIP_VERSION_CHECK": 1}
    for name, value in given.items():
        monkeypatch.setenv(f"PIP_{name}", str(value))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(PROJECT), str(packages)]))
    monkeypatch.syspath_prepend(packages)
    corpora = tmp_path / "corpora"
    shutil.copytree(project.folder / "data/audio/mini", corpora / "mine")
    return project


def recordings(project: Project) -> None:
    """Lay out recordings of the reader's own, as the README takes them, and a list of trials among them."""
    ids = []
    for voice in sorted((project.folder / "data/audio/mini/speech/test").iterdir())[:3]:
        for file in sorted(voice.iterdir())[:2]:
            name = f"{voice.name}/{file.stem}.wav"
            (project.folder / "my/recordings" / name).parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(project.folder / "my/recordings" / name, *soundfile.read(file))
            ids.append(name)
    lines = [f"{int(a.split('/')[0] == b.split('/')[0])} {a} {b}" for a in ids for b in ids if a != b]
    (project.folder / "trials.txt").write_text("\n".join(lines) + "\n")


def demo_trials(project: Project) -> None:
    """Write the list of the quick start, by its own block."""
    listing = [block for block in blocks(PROJECT / "docs/quickstart.md") if "trials.txt" in block.text]
    exec(next(block.text for block in listing if block.language == "python"), {})


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    """The bucket that the recipes write to."""
    server = S3Server()
    given = {"ACCESS_KEY_ID": "a", "SECRET_ACCESS_KEY": "b", "DEFAULT_REGION": "us-east-1"}
    for name, value in ({"ENDPOINT_URL": server.url, "EC2_METADATA_DISABLED": "true"} | given).items():
        monkeypatch.setenv(f"AWS_{name}", value)
    S3FileSystem.clear_instance_cache()
    S3FileSystem().mkdir("bucket")
    yield server
    server.stop()
    S3FileSystem.clear_instance_cache()


@pytest.mark.slow
def test_the_readme_and_the_quick_start_run(place: Project) -> None:
    recordings(place)
    done = run_page("README.md", place)
    assert "Running stage" not in done["make repro"]  # the fixture was its first run
    ran = re.findall(r"Running stage '(.+)'", done["dvc exp run -S train.network.predict=sample"])
    assert ran == ["train@ge2e", *(f"enhance@ge2e-{name}" for name in CONDITIONS), "score@ge2e", "report"]
    assert (place.folder / "scores/scores.csv").exists()
    run_page("docs/quickstart.md", place, done)
    assert (place.folder / "my/seed/metrics.json").exists()


@pytest.mark.slow
@pytest.mark.endurance
@pytest.mark.skipif(not ENDURANCE, reason="takes a minute: make endurance")
@pytest.mark.corpora
def test_the_experiment_of_the_readme_runs(tmp_path: Path, real_corpora: Path) -> None:
    """On a few recordings and rooms, and two conditions."""
    train, test = (sorted((real_corpora / "speechocean762" / part).glob("SPEAKER*")) for part in ("train", "test"))
    test.sort(key=lambda path: path.name.endswith("8"))  # who talks in the babble
    few = [file for path in (*train[:4], *test[:4], test[-1]) for file in sorted(path.glob("*.flac"))[:2]]
    few += [sorted(path.glob("*.ogg"))[0] for path in (real_corpora / "noise").glob("*/*")]
    few += [sorted(path.glob("*.flac"))[0] for path in (real_corpora / "music").iterdir()]
    few += [*(real_corpora / "rir").rglob("*.wav"), *(real_corpora / "speechocean762").glob("*/spk2*")]
    for path in few:
        copy = tmp_path / "corpora" / path.relative_to(real_corpora)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)
    project = Project(tmp_path / "project")
    corpora = project.folder / "data/corpora.yaml"
    corpora.write_text(corpora.read_text().replace("simulated_rooms: 200", "simulated_rooms: 5"))
    project.write(project.read() | {"conditions": ["clean", "noise5"], "sets": ["train", "clean", "noise5"]})
    project.change("extract", draws=1, eval_crops=2)
    project.call("git", "add", "-A")
    project.call("git", "-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "project")
    said = run_line(EXPERIMENT, project, "README.md")
    ran = re.findall(r"Running stage 'score@(.+)'", said)
    assert sorted(ran) == ["campplus", "ge2e"]
    metrics = json.loads((project.folder / "results/metrics.json").read_text())
    for encoder in ran:
        assert list(metrics[encoder]["results"]) == ["clean", "noise5"]
        assert metrics[encoder]["results"]["noise5"]["raw"]["targets"] == 4 * 2 * 1


@pytest.mark.slow
def test_the_recipes_run(place: Project, bucket: S3Server) -> None:
    demo_trials(place)
    run_page("docs/recipes.md", place)
    assert (place.folder / "imported/scores/metrics.json").exists()


@pytest.mark.slow
def test_the_pages_on_other_programs_run(place: Project) -> None:
    run_page("docs/api.md", place)
    defined: dict[str, Any] = {}
    (answer,) = map(json.loads, run_page("docs/systems.md", place, defined=defined).values())
    assert (answer["id"], len(answer["embedding"])) == (7, 256)
    check_adapters(defined, place)
    of_the_authors(place)
    run_page("docs/deploy.md", place)
    run_page("docs/adaptation.md", place)
    run_page("docs/try.md", place)
    run_page("docs/index.md", place)
    assert EmbeddingStore.open(place.folder / "my/noise0.seed.zarr").attributes["adaptation"]["vectors"] == 36
    raw, enhanced = (np.load(place.folder / f"{name}.npy") for name in ("raw", "enhanced"))
    ours = Enhancer.load(place.folder / "models/ge2e/seed.safetensors").enhance(raw)
    np.testing.assert_allclose(enhanced, ours, atol=1e-5 * np.abs(ours).max())


def check_adapters(defined: Mapping[str, Any], project: Project) -> None:
    """Use what the page defines for other people's encoders on stand-ins of them."""
    model, raw = project.folder / "models/ge2e/seed.safetensors", normalize(torch.rand(2, 256))
    classifier = Mock(encode_batch=Mock(return_value=raw[:, None]))
    assert defined["enhanced"](classifier, model).encode_batch(torch.zeros(2, 16_000)).shape == (2, 1, 256)
    embedding = Mock(dimension=256, return_value=raw.numpy())
    assert defined["enhanced_embedding"](embedding, model)(torch.zeros(2, 1, 16_000)).shape == (2, 256)


def of_the_authors(project: Project) -> None:
    """Write a checkpoint as the paper's authors do, and a store of vectors of their encoder."""
    torch.save(checkpoint(dim=256), project.folder / "ecapa_SEED.model")
    attributes = {"encoder": "ecapa_seed", "family": "ecapa_seed", "weights_sha256": "ab", "dim": 256}
    values = vectors(8, 256).numpy().reshape(4, 2, 1, 256)
    write_store(project.folder / "test.zarr", list("abcd"), values, np.full(4, OK, np.uint8), attributes)


def run_page(
    name: str, project: Project, before: Collection[str] = (), defined: dict[str, Any] | None = None
) -> dict[str, str]:
    """Run the blocks of a page, less lines that were run `before`, and return what each line of a shell said.

    What blocks of Python define is put into `defined`.
    """
    done: dict[str, str] = {}
    for block in blocks(PROJECT / name):
        where = f"{name}:{block.line}"
        if block.text.split("\n", 1)[0].strip() in PICTURES:
            continue
        if block.language == "python":
            names: dict[str, Any] = {"__name__": "documented"}
            exec(compile(block.text, where, "exec"), names)
            if defined is not None:
                defined |= names
        elif block.language == "yaml":
            add_settings(block, project)
        elif block.language in SHELL:
            for command in commands(block.text):
                if command not in NOT_RUN and command not in before:
                    done[command] = run_line(command, project, where)
        else:
            pytest.fail(f"{where}: nobody knows how to run {block.language!r}")
    return done


def add_settings(block: Block, project: Project) -> None:
    """Put what a page says into the file that it names."""
    first = block.text.split("\n", 1)[0].strip()
    path = project.folder / FILES[first]
    content = YAML(typ="safe").load(path.read_text()) | YAML(typ="safe").load(block.text)
    with path.open("w") as file:
        YAML(typ="safe").dump(content, file)


def run_line(command: str, project: Project, where: str) -> str:
    """Run a line of a shell: those of `seed` in this process, which spares the start of torch, the others by bash.

    What the latter say on stdout is returned.
    """
    command = command.replace(FOLDER_OF_CORPORA, str(project.folder.parent / "corpora"))
    if setting := re.fullmatch(r"export (\w+)='?([^']*)'?", command):
        assert setting[1] in ENVIRONMENT, f"{where}: {command}"
        os.environ[setting[1]] = setting[2]
        return ""
    if command.startswith("seed ") and not re.search(r"[;&<>$`]", command):
        assert exit_code(shlex.split(command)[1:]) == 0, f"{where}: {command}"
        return ""
    path = os.pathsep.join([str(warm_seed()), str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command],
        cwd=project.folder,
        env=surroundings() | {"PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{where}: {command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    importlib.invalidate_caches()  # it may have installed something
    return done.stdout


def exit_code(arguments: list[str]) -> int:
    try:
        main(arguments)
    except SystemExit as left:
        return int(left.code or 0)
    return 0


def test_what_is_not_run_is_in_the_pages() -> None:
    shown = {line for name in RUN for block in blocks(PROJECT / name) for line in commands(block.text)}
    assert set(NOT_RUN) - shown == set()


def test_the_quick_starts_tell_the_same_figures() -> None:
    rows = [re.findall(r"^\| (?:clean|mean of seven .*) \|.*$", (PROJECT / name).read_text(), re.M) for name in RUN[:2]]
    assert rows[0][:2] == rows[1]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_that_a_page_names_exists(page: Path) -> None:
    shown = [line for block in blocks(page) if block.language in SHELL for line in commands(block.text)]
    ours = re.compile(r"([A-Z_]+=\S* )*(seed|dvc|make|pip|python) ")
    lines = [line for line in (*shown, *quoted(page)) if ours.match(line.replace(FOLDER_OF_CORPORA, "f"))]
    assert [wrong for line in lines if (wrong := wrong_with(line))] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_and_function_that_a_page_names_exists(page: Path) -> None:
    for code in quoted(page):
        if match := re.fullmatch(
            r"((?:benchmarks|docs|examples|params|pipeline|stages|tests)/[\w./-]+)(?::([\w.]+))?", code
        ):
            path, name = match.groups()
            assert (PROJECT / path).exists(), f"{page.name}: {code}"
            if name:
                found = importlib.import_module(path.removesuffix(".py").replace("/", "."))
                for part in name.split("."):
                    assert hasattr(found, part), f"{page.name}: {code}"
                    found = getattr(found, part)


def test_the_page_of_parameters_is_as_the_parameters_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(PROJECT / "docs")
    page = importlib.import_module("parameters")
    assert page.render() == page.PAGE.read_text(), "run python docs/parameters.py"
    assert [each.key for each in page.read_parameters() if not each.meaning] == []
    assert set(page.UNITS) | set(page.ALLOWED) <= {each.key for each in page.read_parameters()}


@pytest.mark.parametrize(
    ("command", "wrong"),
    [
        ("seed enhence --store a", "no command seed enhence"),
        ("seed store chek a", "no command seed store chek"),
        ("seed train --stor a", "no option --stor of seed train"),
        ("seed score --format exel", "--format exel: there are csv, kaldi, txt"),
        ("SEED_DATA=x dvc exp run -S train.netwerk.blocks=3", "no parameter train.netwerk.blocks=3"),
        ("dvc exp run -S train.blocks=3", "no parameter train.blocks=3"),
        ("make repra", "no target repra"),
        ("pip install -e '.[s3]'", "no extra s3"),
        ("python -m benchmarks.nothing", "no module benchmarks.nothing"),
        ("python examples/slurm/nothing.py", "no file examples/slurm/nothing.py"),
        ("seed train --store s3://b/x.zarr --params params/papr.yaml --out m.safetensors", "no file params/papr.yaml"),
        ("seed score --system raw=a --manifest m.csv --out r", None),
        ("dvc exp run -S train.network.blocks=3", None),
    ],
)
def test_a_wrong_command_is_found(command: str, wrong: str | None) -> None:
    assert wrong_with(command) == wrong


def test_blocks_are_found_wherever_they_are(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "a\n\n    seed one \\\n      two  # three\n\n- b\n\n  ```sh\n  four#5 # six\n  ```\n\n```python\nx\n```\n"
    )
    assert [(block.language, block.line) for block in blocks(page)] == [("", 3), ("sh", 8), ("python", 12)]
    assert [commands(block.text) for block in blocks(page)[:2]] == [["seed one two"], ["four#5"]]


def test_an_unknown_block_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "PROJECT", tmp_path)
    project = Project.__new__(Project)
    project.folder = tmp_path
    for text, error in (("```rust\nfn\n```\n", "rust"), ("    false\n", "false"), ("```python\n1 / 0\n```\n", "zero")):
        (tmp_path / "page.md").write_text(text)
        with pytest.raises((AssertionError, pytest.fail.Exception, ZeroDivisionError), match=error):
            run_page("page.md", project)
