"""The page of `seed report`: its tables and plots, by the bytes and in a browser that has no network."""

import csv
import json
import os
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from pipeline.config.params import Params
from pipeline.errors import TrialError
from pipeline.metrics import histogram, roc_of, thin
from pipeline.report import plots as plots_module
from pipeline.report import write_det, write_histograms
from pipeline.report.error_charts import det_chart, snr_chart
from pipeline.report.page import flatten_values, render_page
from pipeline.report.plots import Plot, build_plots
from pipeline.report.results import read_metrics
from pipeline.report.series import Series, read_series
from pipeline.report.style import DET_TICKS, on_probit
from pipeline.scoring.distances import COLUMNS as DISTANCES
from pipeline.scoring.embedding_map import COLUMNS as MAP
from pipeline.utils.atomic import write_json, write_table
from tests.report.test_report import measured, system
from tests.stages.test_cli import run

CONDITIONS = {"clean": 4.0, "noise0": 20.0, "noise10": 10.0, "babble5": 12.5, "reverb": 11.0}
EVIL = "</script><b title=\"x\">&'fused'"
SYSTEMS = ("raw", "seed", EVIL)
ALL = ["eer", "snr", "det", "histogram", "distances", "map", "training"]
CHROMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def write_results(place: Path, systems: tuple[str, ...] = SYSTEMS) -> None:
    """Write what `seed score` and `seed train` leave of an encoder `toy`."""
    rng = np.random.default_rng(0)
    target = np.arange(400) < 100
    table, rocs, histograms = {}, {}, {}
    for condition, eer in CONDITIONS.items():
        table[condition] = {name: system(eer / (number + 1)) for number, name in enumerate(systems)}
        for number, name in enumerate(systems):
            scores = rng.standard_normal(400) + (1 + number) * target
            rocs[condition, name], histograms[condition, name] = thin(roc_of(scores, target)), histogram(scores, target)
    folder = place / "scores/toy"
    write_json(folder / "metrics.json", measured(table) | {"protocol": {"weights": {"sha256": "abc"}, "who": EVIL}})
    write_det(folder / "det.csv", rocs)
    write_histograms(folder / "histogram.csv", histograms)
    noisy = [(name, "itself") for name in CONDITIONS if name != "clean"]
    pairs = [("clean", "same speaker"), ("clean", "another speaker"), *noisy]
    gaps = [(c, s, pair, "cosine", 0.1, 0.2, 0.3, 0.4, 0.5) for s in systems[:2] for c, pair in pairs]
    write_table(folder / "distances.csv", DISTANCES, gaps)
    points = [
        (s, c, f"{who}/{n}", who, *rng.standard_normal(2))
        for s in systems[:2]
        for c in CONDITIONS
        for who in ("anna", EVIL)
        for n in range(3)
    ]
    write_table(folder / "map.csv", MAP, points)
    losses = [(0, "", 0.5), (1, 0.8, 0.4), (2, 0.7, 0.45)]
    write_table(place / "models/toy/curve.csv", ("epoch", "train_loss", "validation_loss"), losses)


def drawn(place: Path) -> list[Plot]:
    table = read_metrics(place / "scores", ["toy"])["toy"]["results"]
    return build_plots(table, read_series(place / "scores", place / "models", "toy"))


class Text(HTMLParser):
    """What a reader of a page sees in its cells, and which elements and addresses it is made of."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.cells: list[str] = []
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.found: dict[str, str] = {}
        self.places: list[str | None] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attributes if name in ("src", "href", "action", "data")]
        self.places.append(dict(attributes).get("id"))
        if tag in ("td", "th"):
            self.cells.append("")

    def handle_data(self, data: str) -> None:
        if self.tags[-1:] and self.tags[-1] in ("td", "th") and self.cells:
            self.cells[-1] += data.strip()
        if self.places and self.places[-1]:
            self.found[self.places[-1]] = self.found.get(self.places[-1], "") + data


def check_table(text: Text) -> None:
    """The cells hold the figures of every system."""
    expected = ["clean", "raw", "4.00 [3.0, 5.0]", "", "0.500", "0.250", "seed", "2.00 [1.0, 3.0]", "-50 %"]
    assert any(text.cells[n : n + len(expected)] == expected for n in range(len(text.cells)))
    assert text.cells[text.cells.index("mean noisy") :][:3] == ["mean noisy", "raw", "13.38"]
    assert text.cells.count(EVIL) == len(CONDITIONS) + 2  # the mean, and the protocol


def command(place: Path, *more: str) -> list[str]:
    folders = ["--results", f"{place}/scores", "--models", f"{place}/models", "--out", f"{place}/out"]
    return ["report", *folders, "--encoder", "toy", "--quality", f"{place}/none", "--corpora", f"{place}/none", *more]


def test_the_page_needs_nothing_but_itself_and_holds_the_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_results(tmp_path)
    code, out, err = run(capsys, *command(tmp_path))
    assert (code, err) == (0, "")
    assert "report.html" in out
    source = (tmp_path / "out/report.html").read_text()
    text = Text(source)
    check_table(text)
    assert "b" not in text.tags  # of the system's name
    assert all(address.startswith("#") for address in text.addresses)
    assert "default-src 'none'" in source
    assert 0.9e6 < len(source) < 1.4e6  # the library is there, once
    assert json.loads(text.found["plots"])["specs"].keys() == {f"encoder-1-{name}" for name in ALL}
    assert text.cells[text.cells.index("weights.sha256") :][:2] == ["weights.sha256", "abc"]
    assert run(capsys, *command(tmp_path))[0] == 0
    assert (tmp_path / "out/report.html").read_text() == source


def test_plots_are_of_what_is_there(tmp_path: Path) -> None:
    write_results(tmp_path)
    assert [plot.name for plot in drawn(tmp_path)] == ALL
    for name in ("det.csv", "histogram.csv", "distances.csv", "map.csv"):
        (tmp_path / "scores/toy" / name).unlink()
    (tmp_path / "models/toy/curve.csv").unlink()
    assert [plot.name for plot in drawn(tmp_path)] == ["eer", "snr"]
    nothing = Series([], [], [], [], [])
    lists = {name: {"raw": system(4.0)} for name in ("vox1-o", "vox1-o/noise0", "vox1-o/noise10")}
    assert [plot.name for plot in build_plots(lists, nothing)] == ["eer", "snr"]
    assert [plot.name for plot in build_plots({"clean": {"raw": system(4.0)}}, nothing)] == ["eer"]


def rows_of(spec: dict[str, dict[str, str]]) -> list[dict[str, str]]:
    """The longest data of a chart's specification."""
    return list(csv.DictReader(max(spec["datasets"].values(), key=len).splitlines()))


def test_eer_is_drawn_against_the_snr_of_each_kind_of_noise() -> None:
    names = ("clean", "noise0", "noise10", "reverb_noise5", "reverb", "noise5_phone", "noise5_babble5")
    chart = snr_chart({name: {"raw": system(4.0)} for name in names})
    assert chart is not None
    assert [(row["kind"], row["snr"]) for row in rows_of(chart.to_dict())] == [
        ("noise", "0"),
        ("noise", "10"),
        ("reverb_noise", "5"),
        ("noise_phone", "5"),
    ]


def test_det_curves_are_on_probit_axes_with_ticks_in_percent(tmp_path: Path) -> None:
    write_results(tmp_path)
    chart = det_chart(read_series(tmp_path / "scores", tmp_path, "toy").det, SYSTEMS, list(CONDITIONS))
    assert chart is not None
    spec = chart.to_dict()
    axis = spec["spec"]["layer"][1]["encoding"]["x"]["axis"]
    assert axis["values"] == [on_probit(tick) for tick in DET_TICKS]
    assert all(f"'{tick:g}'" in axis["labelExpr"] for tick in DET_TICKS)
    rows = rows_of(spec)
    assert {row["system"] for row in rows} == set(SYSTEMS)
    assert len(rows) <= 150 * len(SYSTEMS) * len(CONDITIONS)
    one = [row for row in rows if (row["condition"], row["system"]) == ("noise0", "raw")]
    assert np.all(np.diff([float(row["y"]) for row in one]) >= 0)
    assert on_probit(50) == pytest.approx(0)


def test_plots_are_also_png_of_the_size_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_results(tmp_path, ("raw",))
    widths = []
    for dpi, drawn in (("72", ALL), ("144", ["eer", "snr"])):
        assert run(capsys, *command(tmp_path, "--png", "--dpi", dpi))[0] == 0
        assert sorted(path.name for path in (tmp_path / "out/plots").iterdir()) == sorted(f"toy-{n}.png" for n in drawn)
        content = (tmp_path / "out/plots/toy-eer.png").read_bytes()
        assert content.startswith(b"\x89PNG")
        widths.append(int.from_bytes(content[16:20], "big"))
        for path in (*tmp_path.glob("*/toy/*.csv"), *(tmp_path / "out/plots").iterdir()):  # which takes time to draw
            path.unlink()
    assert widths[1] == pytest.approx(2 * widths[0], abs=2)


def test_without_the_library_there_are_tables_and_a_line_on_how_to_get_the_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_results(tmp_path)
    assert run(capsys, *command(tmp_path))[0] == 0
    monkeypatch.setattr(plots_module, "NEEDED", ("no_such_library",))
    code, out, err = run(capsys, *command(tmp_path))
    assert code == 0
    assert err == "seed report: plots and page need Altair: pip install '.[plots]' (docs/install.md)\n"
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["eer.csv", "metrics.json", "report.md"]
    assert "mean noisy" in out


@pytest.mark.parametrize(
    "content", ["condition,system\nclean,raw\n", "condition,system,false_alarm,miss\nclean,raw,x,1\n", "\0"]
)
def test_a_file_of_another_kind_is_an_error(tmp_path: Path, content: str) -> None:
    write_results(tmp_path)
    (tmp_path / "scores/toy/det.csv").write_text(
        content if content != "\0" else "condition,system,false_alarm,miss\na\n"
    )
    with pytest.raises(TrialError, match=r"det\.csv: not a file of the report"):
        read_series(tmp_path / "scores", tmp_path / "models", "toy")


def test_nested_tables_are_flat_in_the_provenance() -> None:
    content = {"a": {"b": 1, "c": [1, 2]}, "d": [{"e": None}, {"e": True}], "f": "x"}
    assert list(flatten_values(content)) == [
        ("a.b", "1"),
        ("a.c", "1, 2"),
        ("d.1.e", "–"),
        ("d.2.e", "true"),
        ("f", "x"),
    ]


def dom(path: Path) -> str:
    """Return a page as a browser without network has it when its scripts have run."""
    browser = next(filter(None, map(shutil.which, CHROMES)), None)
    if browser is None:
        pytest.skip("no browser of the Chromium family is installed")
    options = ["--headless", "--disable-gpu", "--disable-dev-shm-usage", f"--user-data-dir={path.parent / 'profile'}"]
    options += ["--no-sandbox"] if os.geteuid() == 0 else []
    options += ["--host-resolver-rules=MAP * ~NOTFOUND", "--virtual-time-budget=20000", "--dump-dom"]
    done = subprocess.run([browser, *options, path.as_uri()], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_a_browser_draws_every_plot_without_a_complaint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_results(tmp_path)
    assert run(capsys, *command(tmp_path))[0] == 0
    shown = dom(tmp_path / "out/report.html")
    text = Text(shown)
    assert text.found.get("errors", "").strip() == ""
    assert f'data-drawn="{len(ALL)}"' in shown
    for plot in shown.split("data-plot=")[1:]:
        assert "<svg" in plot, plot[:40]
        assert plot.count("<path") > 5, plot[:40]
    check_table(text)
    assert "b" not in text.tags
    assert ">false alarms, %</text>" in shown
    det = shown.split('data-plot="encoder-1-det"')[1].split("data-plot=")[0]
    assert all(det.count(f">{tick:g}</text>") >= 2 for tick in DET_TICKS)


def test_what_goes_wrong_in_a_browser_is_shown_on_the_page(tmp_path: Path) -> None:
    write_results(tmp_path)
    good = drawn(tmp_path)[0]
    bad = [replace(good, name="broken", spec={"mark": "no such mark", "data": {"values": [{"a": 1}]}}), good]
    metrics = read_metrics(tmp_path / "scores", ["toy"])
    (tmp_path / "page.html").write_text(render_page(metrics, {"toy": bad}, Params(), None, {}))
    shown = dom(tmp_path / "page.html")
    assert "encoder-1-broken" in Text(shown).found["errors"]
    assert 'data-drawn="1"' in shown
