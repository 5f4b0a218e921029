import json

import pytest

from pipeline.extraction.extract import ExtractionProgress
from stages.helpers import progress


def test_figures_are_of_this_run() -> None:
    now = ExtractionProgress(rows=1000, resumed=400, encoded=90, reused=9, failed=1, seconds=7200)
    figures = progress.extraction_figures(now, 10)
    assert figures == {
        "rows": 1000,
        "done": 500,
        "resumed": 400,
        "reused": 9,
        "failed": 1,
        "rows_per_second": 10.0,
        "audio_hours_per_second": 0.2,
        "seconds_left": 50,
    }
    assert progress.extraction_figures(ExtractionProgress(10, 0, 0, 0, 0, 0.0), 5)["seconds_left"] is None


def test_off_a_terminal_progress_is_a_line_of_json_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = iter(range(0, 1000, 4))
    monkeypatch.setattr(progress, "perf_counter", lambda: float(next(clock)))
    with progress.extraction_progress("extract ge2e train") as tell:
        for encoded in range(10):
            tell(ExtractionProgress(100, 0, encoded, 0, 0, 3600.0 * encoded))
    out, err = capsys.readouterr()
    lines = [json.loads(line) for line in err.splitlines()]
    assert not out
    assert 1 <= len(lines) <= 4
    assert lines[0]["stage"] == "extract ge2e train"
    assert lines[0]["done"] > 0


def test_a_terminal_gets_words() -> None:
    words = progress._format_rates(progress.extraction_figures(ExtractionProgress(1000, 0, 95, 0, 5, 3600), 10))
    assert words == "10.0 rows/s, 0.100 h of audio/s, 0:01:30 left, 5 failed"
