import os
import pickle
import threading
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from hashlib import sha256
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from pipeline.encoders.weights import default_cache, load_state, load_tensors, locate
from pipeline.errors import WeightsError

GE2E = "wheel:resemblyzer==0.1.4/resemblyzer/pretrained.pt"
GE2E_SHA256 = "39373b86598fa3da9fcddee6142382efe09777e8d37dc9c0561f41f0070f134e"
CONTENT = b"tensors, say" * 1000
DIGEST = sha256(CONTENT).hexdigest()
WRONG = "0" * 64


def one_line(error: pytest.ExceptionInfo[WeightsError]) -> str:
    message = str(error.value)
    assert len(message.splitlines()) == 1
    return message


def cached_files(cache: Path) -> list[str]:
    return sorted(str(path.relative_to(cache)) for path in cache.rglob("*") if path.is_file())


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a server of one file, net.pt."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "net.pt").write_bytes(CONTENT)

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder))
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with one small wheel, the only place where pip looks."""
    folder = tmp_path / "shelf"
    folder.mkdir()
    with zipfile.ZipFile(folder / "toynet-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("toynet/__init__.py", "raise RuntimeError('imported')")
        wheel.writestr("toynet/net.pt", CONTENT)
        wheel.writestr("toynet-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: toynet\nVersion: 1.0\n")
        wheel.writestr("toynet-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr("toynet-1.0.dist-info/RECORD", "")
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


class TestLocalPath:
    def test_used_in_place(self, tmp_path: Path) -> None:
        path = tmp_path / "net.pt"
        path.write_bytes(CONTENT)
        assert locate(str(path), None) == path
        assert locate(str(path), DIGEST.upper()) == path

    def test_wrong_digest(self, tmp_path: Path) -> None:
        path = tmp_path / "net.pt"
        path.write_bytes(CONTENT)
        with pytest.raises(WeightsError) as error:
            locate(str(path), WRONG)
        assert all(text in one_line(error) for text in (str(path), DIGEST, WRONG))

    def test_missing(self, tmp_path: Path) -> None:
        with pytest.raises(WeightsError, match="no weights at") as error:
            locate(str(tmp_path / "net.pt"), None)
        one_line(error)


class TestRemote:
    def test_fetched_once_and_healed(self, site: str, tmp_path: Path) -> None:
        cache = tmp_path / "cache"
        path = locate(f"{site}/net.pt?v=1", DIGEST, cache)
        assert path == cache / "weights" / DIGEST / "net.pt"
        assert path.read_bytes() == CONTENT
        (tmp_path / "site" / "net.pt").rename(tmp_path / "site" / "away.pt")
        assert locate(f"{site}/net.pt", DIGEST, cache) == path
        (tmp_path / "site" / "away.pt").rename(tmp_path / "site" / "net.pt")
        path.write_bytes(b"damaged")
        assert locate(f"{site}/net.pt", DIGEST, cache).read_bytes() == CONTENT
        assert cached_files(cache) == [f"weights/{DIGEST}/net.pt"]

    def test_two_at_once(self, site: str, tmp_path: Path) -> None:
        with ThreadPoolExecutor(4) as pool:
            paths = set(pool.map(lambda _: locate(f"{site}/net.pt", DIGEST, tmp_path / "cache"), range(8)))
        assert [path.read_bytes() for path in paths] == [CONTENT]
        assert cached_files(tmp_path / "cache") == [f"weights/{DIGEST}/net.pt"]

    def test_wrong_digest_and_missing_file(self, site: str, tmp_path: Path) -> None:
        with pytest.raises(WeightsError, match="expected") as error:
            locate(f"{site}/net.pt", WRONG, tmp_path / "cache")
        assert all(text in one_line(error) for text in ("net.pt", DIGEST, WRONG))
        with pytest.raises(WeightsError, match="404") as error:
            locate(f"{site}/none.pt", WRONG, tmp_path / "cache")
        one_line(error)
        assert cached_files(tmp_path / "cache") == []

    def test_cache_folder_that_cannot_be(self, site: str, tmp_path: Path) -> None:
        (tmp_path / "cache").write_text("a file")
        with pytest.raises(WeightsError, match="SEED_CACHE") as error:
            locate(f"{site}/net.pt", DIGEST, tmp_path / "cache")
        one_line(error)

    def test_default_cache(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("SEED_CACHE", str(tmp_path / "own"))
        assert default_cache() == tmp_path / "own"
        monkeypatch.delenv("SEED_CACHE")
        monkeypatch.setenv("HOME", str(tmp_path))
        assert default_cache() == tmp_path / ".cache" / "speaker-seed"

    @pytest.mark.parametrize("uri", ["https://example.org/net.pt", GE2E])
    def test_unpinned(self, uri: str, tmp_path: Path) -> None:
        with pytest.raises(WeightsError, match="no sha256"):
            locate(uri, None, tmp_path)

    @pytest.mark.parametrize(
        ("uri", "digest"),
        [
            ("https://example.org/net.pt", "../../evil"),
            ("https://example.org/", WRONG),
            ("https://example.org/a/%2e%2e", WRONG),
            ("ftp://example.org/net.pt", WRONG),
            ("wheel:toynet/toynet/net.pt", WRONG),
            ("wheel:-rlist==1/net.pt", WRONG),
            ("wheel:toynet==1.0", WRONG),
        ],
    )
    def test_address_that_cannot_be(self, uri: str, digest: str, tmp_path: Path) -> None:
        with pytest.raises(WeightsError) as error:
            locate(uri, digest, tmp_path)
        assert uri in one_line(error)
        assert list(tmp_path.iterdir()) == []


class TestWheel:
    def test_member(self, shelf: Path, tmp_path: Path) -> None:
        path = locate("wheel:toynet==1.0/toynet/net.pt", DIGEST, tmp_path / "cache")
        assert path.read_bytes() == CONTENT
        (shelf / "toynet-1.0-py3-none-any.whl").unlink()
        assert locate("wheel:toynet==1.0/toynet/net.pt", DIGEST, tmp_path / "cache") == path
        assert cached_files(tmp_path / "cache") == [f"weights/{DIGEST}/net.pt"]

    @pytest.mark.parametrize(
        ("uri", "match"),
        [
            ("wheel:toynet==1.0/toynet/net.pt", f"sha256 {DIGEST}, expected {WRONG}"),
            ("wheel:toynet==1.0/toynet/none.pt", "has no file toynet/none.pt"),
            ("wheel:toynet==2.0/toynet/net.pt", "No matching distribution found for toynet==2.0"),
        ],
    )
    def test_refused(self, shelf: Path, tmp_path: Path, uri: str, match: str) -> None:
        with pytest.raises(WeightsError, match=match) as error:
            locate(uri, WRONG, tmp_path / "cache")
        one_line(error)
        assert cached_files(tmp_path / "cache") == []

    def test_published_weights(self, tmp_path: Path) -> None:
        try:
            path = locate(GE2E, GE2E_SHA256, tmp_path)
        except WeightsError as error:
            if str(error).startswith("pip could not download"):
                pytest.skip(f"the package registry cannot be reached: {error}")
            raise
        state = load_tensors(path)["model_state"]
        assert state["lstm.weight_ih_l0"].shape == (1024, 40)


class Touch:
    """Unpickling it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (self.path,)


class System(Touch):
    """Unpickling it runs a shell."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.path}",)


class TestLoadTensors:
    @pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
    def test_round_trip(self, tmp_path: Path, suffix: str) -> None:
        state = {"weight": torch.arange(6.0).reshape(2, 3)}
        path = tmp_path / f"net{suffix}"
        save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
        torch.testing.assert_close(load_tensors(path), state)

    @pytest.mark.parametrize("kind", [Touch, System])
    @pytest.mark.parametrize("zipped", [True, False])
    def test_hostile_pickle_is_not_run(self, tmp_path: Path, kind: type[Touch], zipped: bool) -> None:
        path, proof = tmp_path / "net.pt", tmp_path / "proof"
        torch.save({"weight": kind(proof)}, path, _use_new_zipfile_serialization=zipped)
        with pytest.raises(WeightsError, match=r"wants to run \S+, which is refused") as error:
            load_tensors(path)
        assert str(path) in one_line(error)
        assert not proof.exists()
        pickle.loads(pickle.dumps(kind(proof)))
        assert proof.exists()  # the attack is real

    @pytest.mark.filterwarnings("ignore:Detected pickle protocol")
    def test_plain_hostile_pickle_is_not_run(self, tmp_path: Path) -> None:
        path, proof = tmp_path / "net.pt", tmp_path / "proof"
        path.write_bytes(pickle.dumps({"weight": System(proof)}))
        with pytest.raises(WeightsError) as error:
            load_tensors(path)
        one_line(error)
        assert not proof.exists()

    @pytest.mark.parametrize("suffix", [".pt", ".old.pt", ".safetensors"])
    @pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
    def test_truncated(self, tmp_path: Path, suffix: str, share: float) -> None:
        state, whole, path = {"weight": torch.zeros(100, 100)}, tmp_path / "whole", tmp_path / f"net{suffix}"
        if suffix == ".safetensors":
            save_file(state, whole)
        else:
            torch.save(state, whole, _use_new_zipfile_serialization=suffix == ".pt")
        path.write_bytes(whole.read_bytes()[: int(whole.stat().st_size * share)])
        with pytest.raises(WeightsError, match="cannot read weights") as error:
            load_tensors(path)
        assert str(path) in one_line(error)

    def test_noise_and_wrong_content(self, tmp_path: Path) -> None:
        path = tmp_path / "net.pt"
        path.write_bytes(b"<html>\nplease log in\n</html>")
        with pytest.raises(WeightsError, match="cannot read weights") as error:
            load_tensors(path)
        one_line(error)
        torch.save(torch.zeros(3), path)
        with pytest.raises(WeightsError, match="hold a Tensor"):
            load_tensors(path)
        with pytest.raises(WeightsError, match="no weights at"):
            load_tensors(tmp_path / "none.pt")


class TestLoadState:
    def test_fits(self) -> None:
        module, other = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)
        load_state(module, other.state_dict(), "net.pt")
        torch.testing.assert_close(module.state_dict(), other.state_dict())

    def test_names_what_does_not_fit(self) -> None:
        module = torch.nn.Sequential(*(torch.nn.Linear(3, 2) for _ in range(3)))
        before = {key: value.clone() for key, value in module.state_dict().items()}
        state = {"0.weight": torch.zeros(2, 4), "0.bias": torch.ones(2), "extra": torch.zeros(1), "epoch": 3}
        with pytest.raises(WeightsError) as error:
            load_state(module, state, "net.pt")
        message = one_line(error)
        assert "weights net.pt do not fit Sequential" in message
        assert "4 missing (1.weight, 1.bias, 2.weight, ...)" in message
        assert "2 unexpected (extra, epoch)" in message
        assert "1 of another shape (0.weight [2, 4] instead of [2, 3])" in message
        torch.testing.assert_close(module.state_dict(), before)

    def test_what_is_no_tensor_has_another_shape(self) -> None:
        with pytest.raises(WeightsError, match=r"0\.bias str instead of \[2\]|bias str instead of \[2\]"):
            load_state(torch.nn.Linear(3, 2), {"weight": torch.zeros(2, 3), "bias": "no"}, "net.pt")
