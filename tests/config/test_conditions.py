import re
from pathlib import Path
from typing import Any

import pytest

from pipeline.audio.augment.corruptions import all_corruptions, find_corruption
from pipeline.config.conditions import condition_snr, condition_steps, is_condition
from pipeline.errors import ConfigError


@pytest.mark.parametrize(
    ("name", "steps"),
    [
        ("clean", []),
        ("noise0", [{"kind": "noise", "snr": [0, 0]}]),
        ("babble-5", [{"kind": "babble", "snr": [-5, -5]}]),
        ("reverb_music10", [{"kind": "reverb"}, {"kind": "music", "snr": [10, 10]}]),
        ("noise5_phone", [{"kind": "noise", "snr": [5, 5]}, {"kind": "phone"}]),
        ("clip10_gsm", [{"kind": "clip", "percent": [10, 10]}, {"kind": "gsm"}]),
        ("mp3-32k", [{"kind": "mp3", "kbit": [32]}]),
        ("opus-12k_vorbis-q3", [{"kind": "opus", "kbit": [12]}, {"kind": "vorbis", "quality": [3]}]),
    ],
)
def test_conditions_are_read_from_their_names(name: str, steps: list[dict[str, Any]]) -> None:
    assert condition_steps(name) == tuple(find_corruption(step["kind"])(**step) for step in steps)


@pytest.mark.parametrize(
    "name", ["", "noise", "noise5dB", "echo", "clean_noise5", "noise5_", "mp3_32", "mp332", "reverb5", "clip"]
)
def test_any_other_name_is_an_error_that_says_what_there_is(name: str) -> None:
    with pytest.raises(ConfigError, match=r"unknown condition .*reverb_noise5"):
        condition_steps(name)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("noise500", "condition 'noise500': snr: must be [lowest, highest] SNR in dB"),
        ("mp3-33k", "condition 'mp3-33k': kbit.0: Input should be 8, 16, 24"),
        ("opus-500k", "kbit.0: Input should be less than or equal to 256, got 500"),
        ("phone_vorbis-q11", "condition 'phone_vorbis-q11': quality.0: Input should be less than or equal to 10"),
        ("clip70", "percent: must be [lowest, highest] % of the samples, between 0 and 50"),
        ("clip-5", "percent: must be [lowest, highest] % of the samples, between 0 and 50"),
    ],
)
def test_a_setting_out_of_range_is_one_line_that_names_the_condition(name: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        condition_steps(name)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "snr"), [("noise5", 5), ("reverb_babble-3_gsm", -3), ("clean", None), ("noise5_music5", None)]
)
def test_the_snr_of_a_condition_is_that_of_its_one_added_sound(name: str, snr: float | None) -> None:
    assert is_condition(name)
    assert condition_snr(name) == snr


def test_the_documentation_lists_all_corruptions() -> None:
    project = Path(__file__).parents[2]
    table = (project / "docs/data.md").read_text().split("| kind | settings |")[1].split("\n\n")[0]
    comment = " ".join((project / "params.yaml").read_text().replace("\n#", " ").split())
    rows = [row.split("|") for row in table.splitlines() if row.startswith("| `")]
    for corruption in all_corruptions():
        kind = corruption.model_fields["kind"].default
        (row,) = (row for row in rows if f"`{kind}`" in row[1])
        settings = set(corruption.model_fields) - {"kind", "probability"}
        assert all(f"`{setting}" in row[2] for setting in settings)
        assert any(corruption.match_condition(name) is not None for name in re.findall("`(.*?)`", row[3]))
        assert corruption.spelling.partition("<")[0] in comment
