"""Hook of MkDocs: a link from a page to a file outside `docs/` leads to a page of the site that shows that file.

So links such as `../params.yaml` work where Markdown is read as it lies in the project, and on the site alike. Of
a file that is not there, the link stays as it is, and the strict build ends with it.
"""

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

LINK = re.compile(r"\]\(((?:\.\./)+)([^)#\s]+)\)")
LANGUAGES = {".py": "python", ".yaml": "yaml", ".toml": "toml", ".md": "markdown", ".sh": "bash"}
FOLDER = "source"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add a page for every file outside `docs/` that a page links to; the navigation does not list them."""
    for file in list(files.documentation_pages()):
        for target in linked(file.content_string, file.src_uri, config):
            uri = page_of(target, config)
            if uri not in files.src_uris:
                shown = File.generated(config, uri, content=page(target, config))
                shown.inclusion = shown.inclusion.NOT_IN_NAV
                files.append(shown)
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Lead the links to these pages."""
    uri = page.file.src_uri
    if uri.startswith(f"{FOLDER}/"):
        return markdown

    def led(match: re.Match[str]) -> str:
        target = outside(match, uri, config)
        return f"]({'../' * uri.count('/')}{page_of(target, config)})" if target else match[0]

    return LINK.sub(led, markdown)


def linked(markdown: str, uri: str, config: MkDocsConfig) -> list[Path]:
    """Return the files outside `docs/` that a page links to."""
    return [target for match in LINK.finditer(markdown) if (target := outside(match, uri, config))]


def outside(match: re.Match[str], uri: str, config: MkDocsConfig) -> Path | None:
    """Return the file of the project that a link names, if there is one outside `docs/`."""
    docs = Path(config.docs_dir)
    target = (docs / Path(uri).parent / match[1] / match[2]).resolve()
    inside = target.is_relative_to(docs) or not target.is_relative_to(docs.parent)
    return None if inside or not target.is_file() else target


def page_of(target: Path, config: MkDocsConfig) -> str:
    """Return where the page of a file lies below `docs/`."""
    return f"{FOLDER}/{target.relative_to(Path(config.docs_dir).parent).as_posix()}.md"


def page(target: Path, config: MkDocsConfig) -> str:
    """Return a page that shows a file; a fence of eight, for there may be others in it."""
    name = target.relative_to(Path(config.docs_dir).parent).as_posix()
    text = target.read_text(encoding="utf-8")
    return f"# {name}\n\n{'`' * 8}{LANGUAGES.get(target.suffix, 'text')}\n{text}\n{'`' * 8}\n"
