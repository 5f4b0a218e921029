"""Safe unpacking of untrusted archives."""

import lzma
import os
import re
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from pipeline.errors import FetchError
from pipeline.utils.atomic import replacing_folder
from pipeline.utils.download import CHUNK, disk_errors, reason

LONGEST_LINK = 4096  # bytes of a symbolic link's target
_ARCHIVE_ERRORS = (tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error, lzma.LZMAError, RuntimeError, ValueError)


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a zip or tar (plain, gz, bz2, xz) to `folder`, completely or not at all; an older folder is replaced.

    Members keep their paths, including a single top-level folder. Symbolic links are made last and must lead to
    something inside, so nothing is ever written through one.

    Raises:
        FetchError: the file is damaged or not an archive, a member would leave `folder` or is a device, or the disk
            is full.
    """
    with disk_errors(f"cannot unpack {archive} to {folder}", "run again"):
        with archive.open("rb") as file:
            zipped = file.read(4) in (b"PK\x03\x04", b"PK\x05\x06")
        with replacing_folder(folder) as root, _archive_errors(archive):
            links = _unpack_zip(archive, root) if zipped else _unpack_tar(archive, root)
            _make_links(archive, root, links)


@contextmanager
def _archive_errors(archive: Path) -> Iterator[None]:
    """Turn the various errors of damaged archives into a FetchError of one line."""
    try:
        yield
    except FetchError:
        raise
    except tarfile.FilterError as error:
        raise _hostile(archive, error.tarinfo.name, "leads outside or is a device") from error
    except (OSError, *_ARCHIVE_ERRORS) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        why = reason(error).split(": - method")[0]  # tarfile lists every compression it has tried
        raise FetchError(
            f"{archive} is truncated, damaged or no zip or tar archive ({why}); delete it and fetch it again"
        ) from error


def _unpack_zip(archive: Path, root: Path) -> list[tuple[str, str]]:
    """Unpack files and folders to `root`; return (path, target) of the symbolic links, which are not made yet."""
    links = []
    with zipfile.ZipFile(archive) as packed:
        for member in packed.infolist():
            _check_name(archive, member.filename)
            kind = stat.S_IFMT(member.external_attr >> 16)
            if kind == stat.S_IFLNK:
                with packed.open(member) as file:
                    links.append((member.filename, os.fsdecode(file.read(LONGEST_LINK))))
            elif kind in (0, stat.S_IFREG, stat.S_IFDIR):
                packed.extract(member, root)
            else:
                raise _hostile(archive, member.filename, "is a device")
    return links


def _unpack_tar(archive: Path, root: Path) -> list[tuple[str, str]]:
    """Unpack files, folders and hard links to `root`; return (path, target) of the symbolic links, not made yet."""
    symbolic, hard = [], []
    with tarfile.open(archive) as packed:
        for member in packed:  # in one pass: seeking back in a compressed archive would unpack it twice
            _check_name(archive, member.name)
            if member.issym():
                symbolic.append((member.name, member.linkname))
            elif member.islnk():
                _check_name(archive, member.linkname)
                hard.append(member)
            else:
                packed.extract(member, root, filter="data")
        _check_tar_end(packed)
        for member in hard:
            if not (root / member.linkname).is_file():
                raise _hostile(archive, member.name, f"is a link to {member.linkname!r}, which is no file inside")
            packed.extract(member, root, filter="data")
    return symbolic


def _check_tar_end(packed: tarfile.TarFile) -> None:
    """Raise ReadError unless the archive ends with zeros: tarfile takes damage between two members for the end."""
    file = packed.fileobj
    assert file is not None
    # Read forward only: tarfile stopped after a block, the first of two blocks of zeros unless the archive is damaged.
    if file.tell() != packed.offset + tarfile.BLOCKSIZE or any(file.read(tarfile.BLOCKSIZE)):
        raise tarfile.ReadError("the end of the archive is missing")
    while file.read(CHUNK):  # the decompressor verifies its checksum at the very end
        pass


def _check_name(archive: Path, name: str) -> None:
    """Raise FetchError if a path is absolute on any system or leads upwards."""
    if re.match(r"[/\\]|[A-Za-z]:", name) or ".." in re.split(r"[/\\]", name):
        raise _hostile(archive, name, "leads outside")


def _make_links(archive: Path, root: Path, links: list[tuple[str, str]]) -> None:
    """Make symbolic links (path, target) below `root`; raise FetchError if one does not end at something inside."""
    for name, target in links:
        path = root / name
        lexical = os.path.normpath(PurePosixPath(name).parent / target)
        if os.path.isabs(target) or lexical.split("/")[0] == "..":
            raise _hostile(archive, name, f"is a link to {target!r}, outside")
        if any(folder.is_symlink() for folder in path.parents if folder.is_relative_to(root)):
            raise _hostile(archive, name, "is reached through a link")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(target)
    for name, target in links:  # the end of a chain of links is known only once all links exist
        try:
            inside = (root / name).resolve(strict=True).is_relative_to(root.resolve())
        except (OSError, RuntimeError):  # RuntimeError: a cycle of links
            inside = False
        if not inside:
            raise _hostile(archive, name, f"is a link to {target!r}, which is nothing inside")


def _hostile(archive: Path, name: str, what: str) -> FetchError:
    return FetchError(f"{archive}: member {name!r} {what}; nothing was unpacked, get the archive from a trusted source")
