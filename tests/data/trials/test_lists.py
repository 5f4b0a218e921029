import gzip
import os
import threading
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.data.trials import parser
from pipeline.data.trials.lists import TrialCounts, count_trials, read_list
from pipeline.errors import TrialError, UnknownUtteranceError

IDS = ("a/1.wav", "a/2.wav", "b/1.wav")

SAME = {
    "VoxCeleb": "1 a/1.wav a/2.wav\n\n0  b/1.wav\ta/1.wav\n",
    "Kaldi": "a/1.wav a/2.wav target\nb/1.wav a/1.wav nontarget\n",
    "CN-Celeb": "a/1.wav a/2.wav 1\nb/1.wav a/1.wav 0\n",
    "byte order mark, CRLF, no last end": "\ufeff\r\n1 a/1.wav a/2.wav\r\n0 b/1.wav a/1.wav",
    "NIST, tab": "modelid\tsegmentid\tside\ttargettype\na/1.wav\ta/2.wav\ta\ttarget\nb/1.wav\ta/1.wav\tb\tnontarget\n",
    "NIST, comma, CRLF": "modelid,segmentid,targettype\r\na/1.wav,a/2.wav,target\r\n\r\nb/1.wav,a/1.wav,nontarget\r\n",
    "our scores": "label,enrolment,test,score\n1,a/1.wav,a/2.wav,0.7\n0,b/1.wav,a/1.wav,0.1\n",
    "quotes": 'Test_ID;Enroll_ID;key\n"a/2.wav";"a/1.wav";"tgt"\n"a/1.wav";"b/1.wav";"imp"\n',
    "spaces": "enrollment-id test-id label\na/1.wav a/2.wav 1\nb/1.wav a/1.wav 0\n",
}


def write(path: Path, text: str) -> Path:
    path.write_bytes(text.encode())
    return path


@pytest.mark.parametrize("form", SAME)
@pytest.mark.parametrize("packed", [False, True])
def test_every_form_gives_the_same_row_numbers(tmp_path: Path, form: str, packed: bool) -> None:
    path = write(tmp_path / "t.txt", SAME[form])
    if packed:  # told by its content: the name stays
        path.write_bytes(gzip.compress(path.read_bytes()))
    found = read_list(path, IDS, IDS[::-1])
    assert found.trials.enrol.tolist() == [0, 2]
    assert found.trials.test.tolist() == [1, 2]
    assert found.trials.target is not None
    assert found.trials.target.tolist() == [True, False]
    assert (found.duplicates, found.contradictions) == (0, 0)
    assert count_trials(path) == TrialCounts(2, 1)


@pytest.mark.parametrize(
    "text", ["a/1.wav b/1.wav\na/1.wav a/2.wav\n", "model,test\na/1.wav,b/1.wav\na/1.wav,a/2.wav\n"]
)
def test_a_list_without_labels_is_read_without(tmp_path: Path, text: str) -> None:
    path = write(tmp_path / "t.txt", text)
    found = read_list(path, IDS, IDS)
    assert found.trials.test.tolist() == [2, 1]
    assert found.trials.target is None
    assert count_trials(path) == TrialCounts(2, None)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("1 a/1.wav\n", "t.txt:1: expected .*`1|0 enrolment test`.* found '1 a/1.wav'"),
        ("2 a/1.wav a/2.wav\n", "t.txt:1: expected"),
        ("\n\n1 a/1.wav a/2.wav\n0 a/1.wav\n", "t.txt:4: expected `1|0 enrolment test`, found '0 a/1.wav'"),
        ("1 a/1.wav a/2.wav\n0 a/1.wav b/1.wav 0.3\n", "t.txt:2: expected"),
        ("1 a/1.wav a/2.wav\na/1.wav b/1.wav nontarget\n", "t.txt:2: .*VoxCeleb format, this one the Kaldi format"),
        ("a/1.wav a/2.wav target\n0 a/1.wav b/1.wav\n", "t.txt:2: .*Kaldi format, this one the VoxCeleb format"),
        ("1 a/1.wav a/2.wav\na/1.wav b/1.wav\n", "t.txt:2: .*this one the unlabeled format"),
        (
            "1 a/1.wav a/2.wav\nmaybe a/1.wav b/1.wav\n",
            "t.txt:2: .*'maybe a/1.wav b/1.wav'. A label is one of 1, 0",
        ),
        ("model,test,key\na/1.wav,a/2.wav\n", "t.txt:2: expected `model,test,key`, found 'a/1.wav,a/2.wav'"),
        ("model,test,key\na/1.wav,a/2.wav,perhaps\n", "t.txt:2: .*A label is one of 1, target"),
        ("model,colour,key\na/1.wav,a/2.wav,1\n", "t.txt:1: expected"),
        ("1 a/1.wav a/2.wav\n", "1 trials of one class only"),
        ("", "lists no trials"),
        ("\n \n", "lists no trials"),
        ("model,test,key\n", "lists no trials"),
    ],
)
def test_a_malformed_or_one_sided_list_is_an_error(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(TrialError, match=says.replace("|", r"\|")):
        read_list(write(tmp_path / "t.txt", text), IDS, IDS)


def test_a_list_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(TrialError, match="no such trial list"):
        read_list(tmp_path / "none.txt", IDS, IDS)
    with pytest.raises(TrialError, match="is a folder"):
        read_list(tmp_path, IDS, IDS)
    (tmp_path / "t.gz").write_bytes(gzip.compress(SAME["VoxCeleb"].encode())[:-9])
    with pytest.raises(TrialError, match="damaged gzip"):
        read_list(tmp_path / "t.gz", IDS, IDS)


def test_unknown_utterances_are_counted_and_the_first_five_placed(tmp_path: Path) -> None:
    path = write(tmp_path / "t.txt", "1 a/1.wav a/2.wav\n0 z/1.wav b/1.wav\n0 z/1.wav q/1.wav\n")
    with pytest.raises(UnknownUtteranceError) as error:
        read_list(path, IDS, IDS)
    assert (
        f"2 of 3 trials name utterances that are not in the store, first: z/1.wav ({path}:2), q/1.wav ({path}:3)."
        in (str(error.value))
    )
    path = write(tmp_path / "t.txt", "1 a/1.wav a/2.wav\n" + "".join(f"0 a/1.wav z/{n}.wav\n" for n in range(7)))
    with pytest.raises(UnknownUtteranceError, match=r"7 of 8 .*z/0.*z/4\.wav \(.*t\.txt:6\)\. Extract them"):
        read_list(path, IDS, IDS)


@pytest.mark.parametrize(
    ("name", "held", "says"),
    [
        ("id1/x.wav", "wav/id1/x.wav", "the store's ids begin with 'wav/'"),
        ("wav/id1/x.wav", "id1/x.wav", "the list's ids begin with 'wav/'"),
        ("id1/x.wav", "id1/x.flac", "the list has the extension '.wav', the store '.flac'"),
        ("id1/x", "id1/x.wav", "the list has the extension '', the store '.wav'"),
        ("id1/x.wav", "wav/id1/x.flac", "begin with 'wav/', and the list has the extension '.wav', the store '.flac'"),
    ],
)
def test_a_prefix_or_an_extension_that_differs_is_named(tmp_path: Path, name: str, held: str, says: str) -> None:
    path = write(tmp_path / "t.txt", f"1 {name} {name}\n")
    with pytest.raises(UnknownUtteranceError) as error:
        read_list(path, ["other", held], ["other", held])
    assert f"The store holds {held!r}: " in str(error.value)
    assert says in str(error.value)
    assert str(error.value).count("\n") == 0


def test_the_hint_is_for_the_side_whose_ids_differ(tmp_path: Path) -> None:
    path = write(tmp_path / "t.txt", "1 q b\n0 q B_1\n")
    with pytest.raises(UnknownUtteranceError, match=r"The store holds 'b-1': they differ in separators .* and in case"):
        read_list(path, ["b-2", "c"], ["b", "b-1"])


def test_repeated_trials_are_counted(tmp_path: Path) -> None:
    text = "1 a/1.wav a/2.wav\n0 a/1.wav b/1.wav\n1 a/1.wav a/2.wav\n1 a/1.wav b/1.wav\n"
    found = read_list(write(tmp_path / "t.txt", text), IDS, IDS)
    assert (len(found.trials), found.duplicates, found.contradictions) == (4, 2, 1)


@given(
    trials=st.lists(
        st.tuples(st.booleans(), st.integers(0, 2), st.integers(0, 2), st.sampled_from(["", "\n", "  \n"]))
    ),
    block=st.integers(1, 40),
)
def test_where_blocks_are_cut_makes_no_difference(
    tmp_path_factory: pytest.TempPathFactory, trials: list[tuple[bool, int, int, str]], block: int
) -> None:
    trials = [(True, 0, 1, ""), (False, 0, 2, ""), *trials]
    path = tmp_path_factory.mktemp("cut") / "t.txt"
    write(path, "".join(f"{blank}{int(label)} {IDS[left]} {IDS[right]}\n" for label, left, right, blank in trials))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parser, "_BLOCK", block)
        found = read_list(path, IDS, IDS).trials
        broken = path.read_text() + "1 a/1.wav\n"
        with pytest.raises(TrialError, match=f"t.txt:{len(broken.splitlines())}: expected"):
            read_list(write(path, broken), IDS, IDS)
    assert found.target is not None
    read = zip(found.target.tolist(), found.enrol.tolist(), found.test.tolist(), strict=True)
    assert list(read) == [trial[:3] for trial in trials]


def test_memory_goes_by_a_trial_and_not_by_a_line(tmp_path: Path) -> None:
    ids = [f"id{n:05}/{'x' * 40}/{n:05}.wav" for n in range(100)]
    draws = np.random.default_rng(0).integers(100, size=(2, 200_000))
    lines = (f"{int(a == b)} {ids[a]} {ids[b]}\n" for a, b in draws.T)
    path = write(tmp_path / "t.txt", "".join(lines))
    tracemalloc.start()
    found = read_list(path, ids, ids)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_array_equal(found.trials.enrol, draws[0])
    # Lines of such a list as Python objects take 300 bytes and more each; a block takes what it takes.
    assert peak < 60 * len(found.trials) + 30 * parser._BLOCK


@pytest.mark.parametrize("order", ["utf-16-le", "utf-16-be"])
def test_utf_16_is_named(tmp_path: Path, order: str) -> None:
    path = tmp_path / "t.txt"
    path.write_bytes("\ufeff1 a b\n0 a c\n".encode(order))
    with pytest.raises(TrialError, match=r"t\.txt: is text in UTF-16\. Save it as UTF-8"):
        count_trials(path)


def test_a_gzip_file_that_expands_beyond_measure_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parser, "_EXPANDED", 1 << 23)
    path = tmp_path / "t.gz"
    for line in (b"\n", b"1 a a\n"):
        path.write_bytes(gzip.compress(line * (3 << 22)))
        with pytest.raises(TrialError, match=r"t\.gz: expands to more than 200 times its size"):
            count_trials(path)
    path.write_bytes(gzip.compress(bytes(3 << 24)))
    with pytest.raises(TrialError, match=r"t\.gz: (expands to|has a line of more than 16,777,216 bytes)"):
        count_trials(path)


def test_a_list_is_read_from_a_pipe(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    threading.Thread(target=path.write_bytes, args=(gzip.compress(b"1 a b\n0 a c\n"),), daemon=True).start()
    assert count_trials(path) == TrialCounts(2, 1)
