"""Registered formats: the commands and the docs list them, and another package may add one."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import ConfigError, ExchangeError
from pipeline.store.formats.registry import BUILT_IN, find_format, format_names
from tests.plugins import install_plugin
from tests.stages.test_cli import run

PROJECT = Path(__file__).parents[3]

PLUGIN = '''
"""Embeddings as lines of JSON."""
import json
import numpy as np
from pipeline.store.formats.reader import VectorReader, open_keyed
from pipeline.store.formats.registry import Format
from pipeline.utils.atomic import replacing

PLUGIN = Format("jsonl", (".jsonl",), __name__)

def open_reader(path, form, ids):
    def lines():
        for line in path.read_text().splitlines():
            name, vector = json.loads(line)
            yield name, np.array(vector, dtype=np.float32)
    return open_keyed(path, lambda: (name for name, _ in lines()), lines)

def write_table(path, form, vectors):
    with replacing(path) as temporary, temporary.open("w") as file:
        for names, block in vectors.blocks():
            for name, vector in zip(names, block.tolist()):
                file.write(json.dumps([name, vector]) + "\\n")
'''


@pytest.fixture
def jsonl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A format that another package registers, and commands that have not been imported before."""
    install_plugin(tmp_path / "site", monkeypatch, "formats", "jsonl", "plugin_jsonl", PLUGIN)
    for module in ("stages.import_", "stages.export"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.chdir(tmp_path)


def test_a_format_of_another_package_is_imported_and_exported(jsonl: None, capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("import", "export"):
        assert "|jsonl]" in "".join(run(capsys, command, "--help")[1].split())
    np.savez("a.npz", ids=np.array(["a", "b"]), embeddings=np.float32([[1.5, 2], [3, 4]]))
    assert run(capsys, "import", "--clean", "a.npz", "--encoder", "x", "--out", "a.zarr")[0] == 0
    code, out, err = run(capsys, "export", "a.zarr", "--out", "b.jsonl")
    assert (code, out) == (0, "b.jsonl: 2 vectors of 2 numbers\n"), err
    assert Path("b.jsonl").read_text() == '["a", [1.5, 2.0]]\n["b", [3.0, 4.0]]\n'
    code, _, err = run(capsys, "import", "--clean", "b.jsonl", "--encoder", "x", "--out", "b.zarr")
    assert code == 0, err
    Path("b.jsonl").rename("b")
    code, _, err = run(capsys, "import", "--clean", "b", "--format", "jsonl", "--encoder", "x", "--out", "c.zarr")
    assert code == 0, err
    files = [
        sorted(path for path in Path(name).rglob("*") if path.is_file()) for name in ("a.zarr", "b.zarr", "c.zarr")
    ]
    assert len(files[0]) == len(files[1]) == len(files[2])
    for first, *others in zip(*files, strict=True):
        assert all(first.read_bytes() == other.read_bytes() for other in others)
    (Path("x.xyz")).touch()
    with pytest.raises(ExchangeError, match=r"known ones are .*\.jsonl, "):
        find_format(Path("x.xyz"))


def test_a_plugin_must_register_a_format(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_plugin(tmp_path, monkeypatch, "formats", "odd", "plugin_odd", "PLUGIN = 1\n")
    with pytest.raises(ConfigError, match=r"plugin odd \(speaker_seed\.formats\): is a int; register a Format"):
        find_format(Path("x"), "odd")
    with pytest.raises(ExchangeError, match=r"no format 'none'; the formats are npy, .*, odd"):
        find_format(Path("x"), "none")


def test_the_docs_list_every_format_and_suffix() -> None:
    page = (PROJECT / "docs/import.md").read_text()
    table = page[page.index("| format | suffix |") : page.index("\n\nSuffixes may be")]
    rows = [line.split("|") for line in table.splitlines()[2:]]
    names = [re.findall("`([^`]+)`", row[1]) for row in rows]
    assert [name for formats in names for name in formats] == [each.name for each in BUILT_IN]
    for row, formats in zip(rows, names, strict=True):
        expected = [suffix for name in formats for suffix in find_format(Path(), name).suffixes]
        assert re.findall(r"`(\.\w+)`", row[2]) == expected
    speeds = next(line for line in page.splitlines() if line.startswith("| | npy"))
    assert set(speeds.replace(" ", "").strip("|").split("|")) <= set(format_names())
