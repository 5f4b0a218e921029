import io
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest

from pipeline.errors import FetchError
from pipeline.utils.archives import unpack
from tests.utils.test_download import BODY, one_line

pytestmark = pytest.mark.endurance


def tar_of(path: Path, members: list[tuple[str, bytes | tuple[bytes, str]]], mode: str = "w:") -> Path:
    """Write a tar of files (name, content) and of special members (name, (type, link))."""
    with tarfile.open(path, mode) as packed:
        for name, content in members:
            info = tarfile.TarInfo(name)
            if isinstance(content, bytes):
                info.size = len(content)
                packed.addfile(info, io.BytesIO(content))
            else:
                info.type, info.linkname = content
                packed.addfile(info)
    return path


def zip_of(path: Path, members: list[tuple[str, bytes, int]]) -> Path:
    """Write a zip of members (name, content, file type bits)."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, content, kind in members:
            info = zipfile.ZipInfo(name)
            info.external_attr = (kind | 0o644) << 16
            packed.writestr(info, content)
    return path


def refuse(archive: Path, folder: Path, match: str) -> None:
    """Unpacking fails on one line, leaves what stood there and nothing else."""
    folder.mkdir()
    (folder / "old").touch()
    before = sorted(path.relative_to(folder.parent) for path in folder.parent.rglob("*"))
    with pytest.raises(FetchError, match=match) as error:
        unpack(archive, folder)
    assert str(archive) in one_line(error)
    assert sorted(path.relative_to(folder.parent) for path in folder.parent.rglob("*")) == before


class TestUnpack:
    @pytest.mark.parametrize("mode", ["w:", "w:gz", "w:bz2", "w:xz"])
    def test_tar_replaces_folder_and_keeps_its_top(self, tmp_path: Path, mode: str) -> None:
        members = [
            ("./top/a.wav", BODY[:3000]),
            ("./top/link", (tarfile.SYMTYPE, "sub/b.wav")),
            ("./top/twin", (tarfile.LNKTYPE, "./top/a.wav")),
            ("./top/sub/b.wav", b"b"),
        ]
        archive = tar_of(tmp_path / "corpus", members, mode)
        folder = tmp_path / "out"
        folder.mkdir()
        (folder / "old").touch()
        unpack(archive, folder)
        assert [path.name for path in folder.iterdir()] == ["top"]
        assert (folder / "top" / "a.wav").read_bytes() == (folder / "top" / "twin").read_bytes() == BODY[:3000]
        assert (folder / "top" / "link").readlink() == Path("sub/b.wav")
        assert sorted(path.name for path in tmp_path.iterdir()) == ["corpus", "out"]

    def test_zip(self, tmp_path: Path) -> None:
        members = [("top/", b"", stat.S_IFDIR), ("top/a.wav", b"a", 0), ("top/link", b"../top/a.wav", stat.S_IFLNK)]
        unpack(zip_of(tmp_path / "a.zip", members), tmp_path / "out")
        assert (tmp_path / "out" / "top" / "link").read_bytes() == b"a"
        assert (tmp_path / "out" / "top" / "link").is_symlink()

    @pytest.mark.parametrize(
        "name", ["../evil", "/tmp/evil", "top/../../evil", "top/../evil", "..\\evil", "C:\\evil", "\\evil"]
    )
    def test_climbing_names(self, tmp_path: Path, name: str) -> None:
        refuse(zip_of(tmp_path / "a.zip", [("good", b"", 0), (name, b"", 0)]), tmp_path / "zipped", "leads outside")
        refuse(tar_of(tmp_path / "a.tar", [("good", b""), (name, b"")]), tmp_path / "tarred", "leads outside")

    @pytest.mark.parametrize("target", ["../../evil", "/etc/passwd", "nowhere", "link", "..", "sub/../../.."])
    def test_links_that_lead_out_or_nowhere(self, tmp_path: Path, target: str) -> None:
        name = "top/link" if target != ".." else "link"
        zipped = zip_of(tmp_path / "a.zip", [(name, target.encode(), stat.S_IFLNK)])
        refuse(zipped, tmp_path / "zipped", r"is a link to .* (outside|nothing inside)|is a link to .*, outside")
        refuse(tar_of(tmp_path / "a.tar", [(name, (tarfile.SYMTYPE, target))]), tmp_path / "tarred", "is a link to")

    def test_chain_of_links_that_only_looks_inside(self, tmp_path: Path) -> None:
        # As text top/deep/up/../.. is top/deep/.., but up leads to the root already.
        chain = [("top/deep/up", "../.."), ("top/deep/out", "up/../..")]
        tarred = tar_of(tmp_path / "a.tar", [(name, (tarfile.SYMTYPE, target)) for name, target in chain])
        refuse(tarred, tmp_path / "tarred", "top/deep/out")
        zipped = zip_of(tmp_path / "a.zip", [(name, target.encode(), stat.S_IFLNK) for name, target in chain])
        refuse(zipped, tmp_path / "zipped", "top/deep/out")

    def test_nothing_is_made_through_a_link(self, tmp_path: Path) -> None:
        members = [("d/a", b""), ("s", (tarfile.SYMTYPE, "d")), ("s/t", (tarfile.SYMTYPE, "a"))]
        refuse(tar_of(tmp_path / "a.tar", members), tmp_path / "tarred", "through a link")
        refuse(tar_of(tmp_path / "b.tar", [*members[:2], ("s/f", b"")]), tmp_path / "tarred2", "cannot unpack")

    @pytest.mark.parametrize("target", ["../secret", "missing", "s"])
    def test_hard_links_to_anything_but_a_file_inside(self, tmp_path: Path, target: str) -> None:
        (tmp_path / "secret").write_bytes(b"secret")
        members = [("d/a", b""), ("s", (tarfile.SYMTYPE, "d/a")), ("h", (tarfile.LNKTYPE, target))]
        refuse(tar_of(tmp_path / "a.tar", members), tmp_path / "tarred", "leads outside|no file inside")

    def test_devices(self, tmp_path: Path) -> None:
        for kind in (tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE):
            archive = tar_of(tmp_path / "a.tar", [("device", (kind, ""))])
            refuse(archive, tmp_path / f"tarred{kind!r}", "is a device")
        refuse(zip_of(tmp_path / "a.zip", [("device", b"", stat.S_IFCHR)]), tmp_path / "zipped", "is a device")

    @pytest.mark.parametrize("mode", ["w:", "w:gz", "w:bz2", "w:xz", "zip"])
    @pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
    def test_truncated_archive(self, tmp_path: Path, mode: str, share: float) -> None:
        whole = tmp_path / "whole"
        if mode == "zip":
            zip_of(whole, [("a", BODY[:50_000], 0), ("b", BODY[:50_000], 0)])
        else:
            tar_of(whole, [("a", BODY[:50_000]), ("b", BODY[:50_000])], mode)
        # A plain tar is padded with zeros to 20 blocks: without those it is still whole.
        size = 2 * (512 + 50_176) if mode == "w:" else whole.stat().st_size
        archive = tmp_path / "cut"
        archive.write_bytes(whole.read_bytes()[: int(size * share)])
        refuse(archive, tmp_path / "out", "truncated")

    @pytest.mark.parametrize("end", [512 + 512, 512 + 512 + 100, 2 * (512 + 512)])
    def test_tar_cut_between_members(self, tmp_path: Path, end: int) -> None:
        archive = tar_of(tmp_path / "a.tar", [("a", b"a"), ("b", b"b")])
        archive.write_bytes(archive.read_bytes()[:end])
        refuse(archive, tmp_path / "out", "truncated")

    def test_damaged_archives(self, tmp_path: Path) -> None:
        for name, mode in (("a.tar", "w:"), ("a.gz", "w:gz"), ("a.bz2", "w:bz2"), ("a.xz", "w:xz")):
            archive = tar_of(tmp_path / name, [("a", BODY[:50_000]), ("b", BODY[:50_000]), ("c", b"c")], mode)
            body = bytearray(archive.read_bytes())
            body[512 + 50_176 : 512 + 50_176 + 300] = b"x" * 300
            archive.write_bytes(body)
            refuse(archive, tmp_path / f"out_{name}", "damaged")
        archive = zip_of(tmp_path / "a.zip", [("a", BODY[:50_000], 0)])
        body = bytearray(archive.read_bytes())
        body[2000:2300] = b"x" * 300
        archive.write_bytes(body)
        refuse(archive, tmp_path / "out_zip", "damaged")

    def test_missing_archive_and_no_archive(self, tmp_path: Path) -> None:
        refuse(tmp_path / "none.zip", tmp_path / "a", "cannot unpack .*No such file")
        (tmp_path / "page.zip").write_text("<html>please log in</html>")
        refuse(tmp_path / "page.zip", tmp_path / "b", "no zip or tar archive")
