"""The documentation as a site: it is built, asks nothing of a network, and a link to nowhere ends the build."""

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from click.testing import CliRunner
from mkdocs.__main__ import cli

from tests.project import PROJECT


class Built(NamedTuple):
    """The exit code of a build, and the warnings and errors it logged."""

    returncode: int
    stderr: str


@pytest.fixture
def build(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], Built]:
    """Build a site by the command of MkDocs, in this process."""

    def build(folder: Path) -> Built:
        monkeypatch.chdir(folder)
        done = CliRunner().invoke(cli, ["build", "--strict", "--site-dir", str(folder / "site")])
        return Built(done.exit_code, f"{done.output}\n{caplog.text}")

    return build


Build = Callable[[Path], Built]


def project(folder: Path) -> Path:
    """Lay out a project whose documentation is two pages, with the settings of ours."""
    (folder / "docs/assets").mkdir(parents=True)
    shutil.copy(PROJECT / "docs/sources.py", folder / "docs")
    for name in ("iframe-worker.js", "site.css"):
        shutil.copy(PROJECT / "docs/assets" / name, folder / "docs/assets")
    settings = (PROJECT / "mkdocs.yml").read_text()
    (folder / "mkdocs.yml").write_text(re.sub(r"(?s)\nnav:\n.*", "\nnav: [index.md, sub/page.md]\n", settings))
    (folder / "docs/sub").mkdir()
    (folder / "code").mkdir()
    (folder / "code/a.py").write_text('"""```"""\nANSWER = 42\n')
    (folder / "docs/index.md").write_text("# One\n\n[code](../code/a.py), [two](sub/page.md#there)\n")
    (folder / "docs/sub/page.md").write_text("# Two\n\n## There\n\n[code](../../code/a.py)\n")
    return folder


def test_a_link_to_a_file_outside_leads_to_a_page_that_shows_it(tmp_path: Path, build: Build) -> None:
    folder = project(tmp_path)
    done = build(folder)
    assert done.returncode == 0, done.stderr
    assert 'href="source/code/a.py.html"' in (folder / "site/index.html").read_text()
    assert 'href="../source/code/a.py.html"' in (folder / "site/sub/page.html").read_text()
    shown = re.sub(r"<[^>]+>", "", (folder / "site/source/code/a.py.html").read_text())
    assert "ANSWER = 42" in shown
    assert not (folder / "site/sources.py").exists()


@pytest.mark.parametrize("link", ["../code/b.py", "other.md", "sub/page.md#nowhere", "../../outside.md"])
def test_a_link_to_nowhere_ends_the_build(tmp_path: Path, link: str, build: Build) -> None:
    folder = project(tmp_path / "project")
    (tmp_path / "outside.md").write_text("not of this project")
    with (folder / "docs/index.md").open("a") as file:
        file.write(f"\n[x]({link})\n")
    done = build(folder)
    assert done.returncode == 1
    assert link.split("#")[0].rsplit("/", 1)[-1] in done.stderr


def test_a_page_that_the_navigation_leaves_out_ends_the_build(tmp_path: Path, build: Build) -> None:
    folder = project(tmp_path)
    (folder / "docs/new.md").write_text("# New\n")
    done = build(folder)
    assert done.returncode == 1
    assert "new.md" in done.stderr


def test_our_site_asks_nothing_of_a_network(tmp_path: Path) -> None:
    site, sources = PROJECT / "site", [PROJECT / name for name in ("mkdocs.yml", "README.md", "docs", "pipeline")]
    files = [path for source in sources for path in (source, *source.rglob("*.*")) if path.is_file()]
    changed = max(path.stat().st_mtime for path in files if path.suffix != ".pyc")
    built = site / "sitemap.xml"
    if not built.exists() or built.stat().st_mtime < changed:  # else `make docs` has just been run
        site = tmp_path
        command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(site)]
        done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    pages = sorted(site.rglob("*.html"))
    assert {"index.html", "how.html", "parameters.html", "reference.html"} <= {page.name for page in pages}
    asked = re.compile(r"<(?:script|img|iframe|link|source)\b[^>]*?(?:src|href)=[\"']?(?:https?:)?//[^\s>]*")
    for page in pages:
        assert asked.findall(page.read_text()) == [], page.name
    for style in site.rglob("*.css"):
        assert re.findall(r"url\([\"']?(?:https?:)?//|@import", style.read_text()) == [], style.name
