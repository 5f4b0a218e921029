from pathlib import Path

import pytest

from pipeline.errors import ConfigError
from pipeline.utils.plugins import find_plugins, load_plugin
from tests.plugins import install_plugin


def test_a_registered_object_is_found_and_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "sample" not in find_plugins("objectives")
    install_plugin(tmp_path, monkeypatch, "objectives", "sample", "plugin_sample", "PLUGIN = 41 + 1\n")
    assert find_plugins("objectives")["sample"].value == "plugin_sample:PLUGIN"
    assert load_plugin("objectives", "sample") == 42
    assert load_plugin("formats", "sample") is None


def test_a_plugin_that_fails_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_plugin(tmp_path, monkeypatch, "formats", "broken", "plugin_broken", "raise ValueError('two\\nlines')\n")
    with pytest.raises(ConfigError, match=r"plugin broken \(speaker_seed.formats\): .* ValueError: two lines"):
        load_plugin("formats", "broken")
