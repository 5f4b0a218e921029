"""Files that appear whole or not at all."""

import json
from pathlib import Path

from pipeline.utils.atomic import write_json


def test_json_files_hold_no_negative_zero(tmp_path: Path) -> None:
    content = {
        "eer": -0.0,
        "ci": [-0.0, -1.5],
        "groups": [{"f": {"eer": -0.0}}],
        "count": 0,
        "name": "-0.0",
        "ok": True,
    }
    write_json(tmp_path / "m.json", content)
    text = (tmp_path / "m.json").read_text()
    assert text.count("-0.0") == 1  # that of the name
    assert json.loads(text) == content
    assert json.loads(text)["ok"] is True
