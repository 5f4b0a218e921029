import html
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from pipeline.utils.markdown import escape_markdown, format_code

RENDERER = MarkdownIt("gfm-like", {"html": True, "linkify": False})
EVIL = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "[a](javascript:alert(1))",
    "![a](http://x/y.png)",
    "**bold** _it_ __b__ `code` ~~gone~~ snake_case_name",
    "# heading",
    "- item",
    "1. item",
    "12) item",
    "---",
    "===",
    "&lt;b&gt; &amp; &#60;",
    "a | b || c",
    "a\n\n<b>\n# x",
    "\\<b\\>",
    "```\n<b>\n```",
]


def read_text(rendered: str) -> str:
    return html.unescape(re.sub(r"<[^>]*>", "", rendered)).strip()


@pytest.mark.parametrize("text", EVIL)
def test_foreign_text_stays_text(text: str) -> None:
    rendered = RENDERER.render(escape_markdown(text))
    assert set(re.findall(r"<[^>]*>", rendered)) == {"<p>", "</p>"}
    assert read_text(rendered) == " ".join(text.split())


@pytest.mark.parametrize("text", EVIL)
def test_a_cell_stays_a_cell(text: str) -> None:
    rendered = RENDERER.render(f"| a | b |\n|---|---|\n| {escape_markdown(text)} | {format_code(text)} |\n")
    cells = re.findall(r"<td>(.*?)</td>", rendered)
    assert [read_text(cell) for cell in cells] == [" ".join(text.split())] * 2
    assert "<" not in cells[0]
    assert re.findall(r"<[^>]*>", cells[1]) == ["<code>", "</code>"]


@given(st.text("ab1_*`<>&[]()|~#+-=.!\\ \n\"'", min_size=1))
def test_no_text_becomes_markup(text: str) -> None:
    rendered = RENDERER.render(f"x {escape_markdown(text)} x")
    assert set(re.findall(r"<[^>]*>", rendered)) == {"<p>", "</p>"}
    assert read_text(rendered) == f"x {' '.join(text.split())} x"


def test_plain_names_are_unchanged() -> None:
    for name in ("noise0", "vox1-o/noise5", "raw_asnorm", "speechocean762 (Mandarin), 5.0 %", "0.2500", "-1.5"):
        assert escape_markdown(name) == name
