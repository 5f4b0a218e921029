"""Vectors from and to other programs, in this process and through real pipes."""

import json
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Timer
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import Enhancer
from pipeline.errors import VectorError
from pipeline.store.schema import OK
from pipeline.store.writer import write_store
from pipeline.training.api import train
from stages.cli import main
from stages.helpers.stdin import enhance_frames, enhance_lines, frame_size
from tests.linear_encoder import DIM, encoded, speech
from tests.warm import warm_seed

RAW = encoded(speech(8, seed=1)).reshape(-1, DIM)
SETTINGS = {"max_epochs": 2, "batch_size": 64, "strength": 0.6, "device": "cpu", "folds": 0}
NAN = [float("nan"), *[1.0] * (DIM - 1)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path, values = tmp_path_factory.mktemp("model") / "seed.safetensors", encoded(speech())
    train(values[:, :, 0], values[:, :, 1:], encoder={"encoder": "toy"}, settings=SETTINGS, out=path)
    return path


@pytest.fixture(scope="module")
def enhancer(model: Path) -> Enhancer:
    return Enhancer.load(model)


def line(value: object) -> bytes:
    return json.dumps(value).encode() + b"\n"


def answers(enhancer: Enhancer, *values: object, **options: Any) -> list[Any]:
    return [json.loads(each) for each in enhance_lines(enhancer, map(line, values), **options)]


@pytest.mark.parametrize("strength", [None, 0.0, 0.3, 1.0])
def test_each_answer_is_that_of_the_enhancer(enhancer: Enhancer, strength: float | None) -> None:
    expected = [enhancer.enhance(x, strength) for x in RAW]
    frames = enhance_frames(enhancer, (x.astype("<f4").tobytes() for x in RAW), strength)
    np.testing.assert_array_equal(np.frombuffer(b"".join(frames), "<f4").reshape(-1, DIM), expected)
    lines = answers(enhancer, *(x.tolist() for x in RAW), strength=strength)
    np.testing.assert_array_equal(np.float32(lines), expected)
    np.testing.assert_allclose(lines, enhancer.enhance(RAW, strength), atol=1e-5)  # all in one batch


KEYS = st.text(max_size=5).filter(lambda key: key != "embedding")
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=40, deadline=None)
@given(
    before=st.dictionaries(KEYS, VALUES, max_size=3),
    after=st.dictionaries(KEYS, VALUES, max_size=3),
    row=st.integers(0, 99),
)
def test_other_keys_come_back(enhancer: Enhancer, before: Any, after: Any, row: int) -> None:
    record = {**before, "embedding": RAW[row].tolist(), **{k: v for k, v in after.items() if k not in before}}
    (answer,) = answers(enhancer, record)
    assert list(answer) == list(record)
    assert answer == record | {"embedding": enhancer.enhance(RAW[row].astype(float)).tolist()}


def test_info_is_that_of_the_enhancer(enhancer: Enhancer) -> None:
    x = np.stack([RAW[0], 50 * RAW[1], 0 * RAW[2]]).astype(float)
    with pytest.warns(UserWarning, match="median length"):
        parsed = answers(enhancer, {"id": 7, "embedding": x[0].tolist()}, x[1].tolist(), x[2].tolist(), with_info=True)
    assert list(parsed[0]) == ["id", "embedding", "moved", "atypicality", "confidence", "out_of_distribution"]
    assert list(parsed[1]) == ["embedding", "moved", "atypicality", "confidence", "out_of_distribution"]
    out, info = enhancer.enhance(x[0], return_info=True)
    assert parsed[0]["embedding"] == out.tolist()
    assert (parsed[0]["moved"], parsed[0]["atypicality"]) == (float(info.moved), float(info.atypicality))
    assert info.confidence is not None
    assert parsed[0]["confidence"] == float(info.confidence)
    assert [each["out_of_distribution"] for each in parsed] == [False, True, True]
    nothing = {"moved": 0.0, "atypicality": None, "confidence": 0.0, "out_of_distribution": True}
    assert parsed[2] == {"embedding": [0.0] * DIM} | nothing
    with pytest.raises(VectorError, match=r"line 1: already has moved"):
        answers(enhancer, {"moved": 1, "embedding": x[0].tolist()}, with_info=True)


X = RAW[0].tolist()


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (b"[1, 2\n", "is not JSON"),
        (b"\n", "is not JSON"),
        (b"\xff\xfe\n", "is not JSON"),
        (b"[" * 100_000 + b"\n", "is not JSON"),
        (b"[" + b"1" * 5000 + b"]\n", "is not JSON"),
        (line(X[:-1]), f"has {DIM - 1} numbers; the model takes {DIM}"),
        (line([X]), "has 1 numbers"),
        (line({"id": 3}), "has no key 'embedding'"),
        (line({"embedding": 3}), "holds no list of numbers"),
        (line("text"), "holds no list of numbers"),
        (line(["1.5", *X[1:]]), '"1.5" is not a number'),
        (line([True, *X[1:]]), "true is not a number"),
        (line(NAN), "holds NaN or infinite values"),
        (line([None, *X[1:]]), "holds NaN or infinite values"),
        (line([10**400, *X[1:]]), "holds NaN or infinite values"),
    ],
)
def test_a_bad_line_is_named_and_those_before_it_are_answered(enhancer: Enhancer, bad: bytes, says: str) -> None:
    answered = enhance_lines(enhancer, iter([line(X), line(X), bad, line(X)]))
    assert next(answered) == next(answered)
    with pytest.raises(VectorError, match=rf"^line 3: .*{says}") as error:
        next(answered)
    assert "\n" not in str(error.value)


def test_numbers_beyond_all_floats_are_null(enhancer: Enhancer) -> None:
    given = line({"embedding": X, "x": [0.5]}).replace(b"0.5", b"1e400")
    beyond = b"[-1e999" + line(X)[line(X).index(b",") :]
    fine, raw = enhance_lines(enhancer, [given, beyond], on_bad="raw")
    assert json.loads(fine)["x"] == [None]
    assert json.loads(raw) == [None, *X[1:]]
    with pytest.raises(VectorError, match="line 1: holds NaN or infinite"):
        list(enhance_lines(enhancer, [beyond]))


def test_bad_vectors_come_back_as_they_were(enhancer: Enhancer) -> None:
    record = {"id": 1, "embedding": [None, 10**400, *X[2:]]}
    good, *bad = enhance_lines(enhancer, [line(X), line(record), line(NAN)], on_bad="raw")
    assert json.loads(good) == enhancer.enhance(np.array(X)).tolist()
    assert bad == [line(record), line(NAN)]
    (info,) = answers(enhancer, record, on_bad="raw", with_info=True)
    assert info == record | {"moved": 0.0, "atypicality": None, "confidence": 0.0, "out_of_distribution": True}
    frames = [np.float32(X).tobytes(), np.float32(NAN).tobytes()]
    assert list(enhance_frames(enhancer, frames, on_bad="raw")) == [
        enhancer.enhance(np.float32(X)).tobytes(),
        frames[1],
    ]
    with pytest.raises(VectorError, match="frame 2: holds NaN"):
        list(enhance_frames(enhancer, frames))


COMMAND = ["enhance", "--device", "cpu"]


@contextmanager
def running(*options: object) -> Iterator[Any]:
    command, pipe = [warm_seed() / "seed", *COMMAND, *map(str, options)], subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe) as process:
        late = Timer(100, process.kill)  # rather than to wait for ever for an answer that does not come
        late.start()
        try:
            yield process
        finally:
            late.cancel()
            process.kill()


def test_a_partner_has_its_answer_before_it_asks_again(enhancer: Enhancer, model: Path, tmp_path: Path) -> None:
    drifted = RAW + 0.12 * np.random.default_rng(0).standard_normal(DIM).astype(np.float32)
    ids = list(map(str, range(len(drifted))))
    write_store(tmp_path / "d.zarr", ids, drifted[:, None, None], np.full(len(ids), OK, np.uint8), {"dim": DIM})
    adapted = enhancer.adapt(drifted)
    assert adapted.adaptation is not None
    with running("--model", model, "--stdin", "json", "--adapt", tmp_path / "d.zarr") as process:
        for row in range(5):
            process.stdin.write(line({"id": row, "embedding": RAW[row].tolist()}))
            process.stdin.flush()
            answer = json.loads(process.stdout.readline())
            assert answer == {"id": row, "embedding": adapted.enhance(RAW[row].astype(float)).tolist()}
        process.stdin.write(b"[1]\n")
        process.stdin.close()
        assert process.stdout.read() == b""
        assert process.wait() == 1
        said = process.stderr.read().decode()
    assert said == f"seed: error: line 6: has 1 numbers; the model takes {DIM}, the dimension of its encoder.\n"


def test_frames_go_through_and_a_truncated_one_is_named(enhancer: Enhancer, model: Path) -> None:
    size = frame_size(enhancer)
    with running("--model", model, "--stdin", "f32", "--strength", 0.4) as process:
        for row in range(3):
            process.stdin.write(RAW[row].tobytes())
            process.stdin.flush()
            answer = np.frombuffer(process.stdout.read(size), "<f4")
            np.testing.assert_array_equal(answer, enhancer.enhance(RAW[row], 0.4))
        process.stdin.write((100 * RAW[3]).tobytes() + (100 * RAW[4]).tobytes() + RAW[5].tobytes()[:-3])
        process.stdin.close()
        assert len(process.stdout.read()) == 2 * size
        assert process.wait() == 1
        warned, *said = process.stderr.read().decode().splitlines()
    assert warned.startswith(f"seed: warning: {model}: vectors have a median length of")  # once
    assert said == [f"seed: error: frame 6: has {size - 3} bytes; the model takes {DIM} float32, which are {size}."]


def test_a_reader_that_leaves_ends_it_quietly(model: Path) -> None:
    with running("--model", model, "--stdin", "json") as process:
        process.stdin.write(line(X))
        process.stdin.flush()
        process.stdout.readline()
        process.stdout.close()
        process.stdin.write(line(X) * 3)
        process.stdin.close()
        process.wait()
        assert process.stderr.read() == b""


@pytest.mark.parametrize("closed", ["<&-", ">&-"])
def test_a_closed_descriptor_is_one_line(model: Path, closed: str) -> None:
    command = shlex.join([sys.executable, "-m", "stages.cli", *COMMAND, "--model", str(model), "--stdin", "json"])
    done = subprocess.run(["sh", "-c", f"{command} {closed}"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("seed: error: --stdin: standard input or output is closed.")
    assert done.stderr.count("\n") == 1


def test_nothing_in_is_nothing_out(model: Path) -> None:
    command = [warm_seed() / "seed", *COMMAND, "--model", model, "--stdin", "f32"]
    done = subprocess.run(command, input=b"", capture_output=True, check=True)
    assert done.stdout == done.stderr == b""


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--stdin", "json", "--store", "."], "--stdin excludes --store"),
        (["--stdin", "json", "--out", "x.zarr"], "--stdin excludes --store"),
        (["--stdin", "f32", "--timestep", "5"], "--stdin excludes --store"),
        (["--stdin", "f32", "--info"], "--info needs --stdin json"),
        (["--store", ".", "--out", "x.zarr", "--on-bad", "raw"], "--info and --on-bad need --stdin"),
        (["--store", "."], "give --store and --out, or --stdin"),
        ([], "give --store and --out, or --stdin"),
        (["--stdin", "csv"], "'csv' is not one of 'json', 'f32'"),
    ],
)
def test_usage(model: Path, options: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["enhance", "--model", str(model), *options])
    assert left.value.code == 2
    assert says in capsys.readouterr().err
