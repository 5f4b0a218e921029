"""The paper's corpora by name, on a tiny tree of the same layout: check, fetch, manifest, extract, score, report."""

import json
import re
import shutil
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from pipeline.data.trials.vcmix import write_vcmix
from pipeline.errors import TrialError
from tests.conftest import WriteVoice
from tests.paper import CONVERSE, UTTERANCES, lay_out, vox_list
from tests.stages.test_cli import PROJECT, run

LISTS = ["vc-mix", "vox1-e-cleaned", "vox1-h-cleaned", "vox1-o-cleaned", "voxsrc23-val"]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write_voice: WriteVoice) -> Path:
    """A working folder with the shipped definitions, the tiny corpora, and parameters cut down to GE2E."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SEED_DATA", str(tmp_path / "root"))
    (tmp_path / "data").mkdir()
    shutil.copy(PROJECT / "data/corpora.yaml", tmp_path / "data")
    lay_out(tmp_path / "root", write_voice)
    params = YAML(typ="safe").load((PROJECT / "params/paper.yaml").read_text())
    params |= {"encoders": ["ge2e"], "encoder": {"ge2e": {"family": "ge2e"}}}
    params["extract"] |= {"draws": 1, "eval_crops": 2, "eval_frames": 160, "workers": 0, "prefetch": 0}
    params["train"] |= {"max_epochs": 1, "batch_size": 4, "validation": 0.5}
    with (tmp_path / "params.yaml").open("w") as file:
        YAML(typ="safe").dump(params, file)
    return tmp_path


def test_the_experiment_from_check_to_report(capsys: pytest.CaptureFixture[str], place: Path) -> None:
    code, out, err = run(capsys, "corpus", "check", "paper")
    assert code == 1
    assert "no file vcmix.txt: `seed trials vcmix`" in out
    assert "corpus paper: 1 of the above are missing" in err

    code, out, err = run(capsys, "trials", "vcmix")
    assert code == 0
    assert "8 targets of" in out
    assert "published VC-Mix has 18,802 targets and 140,734 non-targets" in err
    assert "(8 and 2)" in err
    code, out, err = run(capsys, "corpus", "check", "paper")
    assert (code, err) == (0, "")
    assert re.search(r"voxceleb1/test/wav/.* 6 of 4,874 +another number than published", out)
    assert "trial list vox1-o-cleaned: 56 trials where 37,611 are published" in out

    assert run(capsys, "fetch")[0] == 0
    code, out, err = run(capsys, "manifest", "--corpus", "paper", "--out", "data/manifests")
    assert code == 0, err
    assert "train.csv: 12 utterances" in out
    assert "clean.csv: 12 utterances" in out
    manifest = (place / "data/manifests/clean.csv").read_text()
    assert all(f"\n{name}," in manifest for name in (*UTTERANCES, *CONVERSE))
    assert manifest.count(",id10") == 8  # who speaks in VoxSRC and VoxConverse is in the lists only

    code, out, _ = run(capsys, "plan")
    assert code == 0
    assert "12 x 4 crops" in out.replace("│", " ").replace("  ", " ")
    assert "manifest" in out

    (place / "data/manifests/train.csv").rename(place / "train.csv")  # and there, one of another corpus
    mine = (place / "train.csv").read_text().replace("/paper/", "/demo/")
    (place / "data/manifests/train.csv").write_text("\n".join(mine.splitlines()[:2]) + "\n")
    assert "1 x 4 crops" not in run(capsys, "plan")[1].replace("│", " ").replace("  ", " ")
    (place / "train.csv").rename(place / "data/manifests/train.csv")

    for name in ("train", "clean"):
        lists = ["--manifest", f"data/manifests/{name}.csv", "--augment", f"data/manifests/{name}.augment.csv"]
        code, _, err = run(capsys, "extract", *lists, "--set", name, "--encoder", "ge2e", "--out", f"raw/{name}.zarr")
        assert code == 0, err
    sides = ["--enrol", "raw/clean.zarr", "--test", "raw/clean.zarr", "--out", "one"]
    code, out, err = run(capsys, "score", *sides, "--trials", "vox1-o-cleaned")
    assert code == 0, err
    assert "56 trials" in out
    assert "trial list vox1-o-cleaned: 56 trials where 37,611 are published and 8 targets where 18,802" in err

    train = ["--manifest", "data/manifests/train.csv", "--out", "m.safetensors"]
    code, _, err = run(capsys, "train", "--store", "raw/train.zarr", *train)
    assert code == 0, err
    assert "train.scale: sampling trains on vectors of length 1 (the median), but enhancement scales them to 16" in err
    assert [path.name for path in (place / "m.epochs").iterdir()] == ["epoch0001.safetensors"]
    enhance = ["--model", "m.safetensors", "--out", "seed/clean.zarr"]
    assert run(capsys, "enhance", "--store", "raw/clean.zarr", *enhance)[0] == 0
    systems = ["--system", "raw=raw", "--system", "seed=seed", "--manifest", "data/manifests/clean.csv"]
    systems += ["--model", "m.safetensors"]
    code, _, err = run(capsys, "score", *systems, "--lists", "data/audio/paper/trials", "--out", "scores/ge2e")
    assert code == 0, err
    metrics = json.loads((place / "scores/ge2e/metrics.json").read_text())
    assert list(metrics["results"]) == LISTS
    raw = metrics["results"]["vox1-o-cleaned"]["raw"]
    assert (raw["targets"], raw["nontargets"]) == (8, 48)
    assert raw["eer"] == json.loads((place / "one/metrics.json").read_text())["results"]["eer"]
    assert "eer_ci" in raw
    assert "eer_ci" not in metrics["results"]["vc-mix"]["raw"]
    code, out, _ = run(capsys, "report", "--results", "scores", "--out", "results", "--no-table")
    assert code == 0
    assert "ge2e: vc-mix EER" in out
    text = (place / "results/report.md").read_text()
    assert "Trial lists by name; 2 crops of 160 frames" in text
    assert "vox1-o-cleaned: 8 target and 48 non-target trials." in text
    assert "mean noisy" not in text


def test_what_is_wrong_with_a_corpus_is_said(
    capsys: pytest.CaptureFixture[str], place: Path, write_voice: WriteVoice
) -> None:
    shutil.rmtree(place / "root/voxceleb1/dev")
    write_voice(place / "root/v.wav").rename(place / "root/voxceleb1/test/wav/id10270/video1/00001.m4a")
    for path in place.glob("root/voxceleb1/test/wav/*/*/*.wav"):
        path.unlink()
    (place / "root/musan/noise/free-sound/n.wav").write_text("no audio")
    code, out, err = run(capsys, "corpus", "check", "voxceleb1")
    assert code == 1
    assert f"no folder {place}/root/voxceleb1/dev/wav" in out
    assert "only .m4a: convert them" in out
    assert "no file voxceleb1/veri_test.txt: the page of VoxCeleb" in out
    assert "ask for access by the form of that page" in out
    assert err.startswith("seed: error: corpus voxceleb1: 5 of the above")
    assert err.count("\n") == 1
    code, out, _ = run(capsys, "corpus", "check", "musan")
    assert code == 1
    assert "1 of 1 files unreadable" in out
    assert run(capsys, "corpus", "check", "demo")[0] == 0
    assert run(capsys, "corpus", "check", "vox9")[2].startswith("seed: error: no corpus 'vox9'; there are demo,")


def test_a_part_of_corpora_can_neither_be_fetched_nor_planned(capsys: pytest.CaptureFixture[str], place: Path) -> None:
    code, _, err = run(capsys, "fetch", "--corpus", "musan")
    assert (code, err) == (
        1,
        "seed: error: corpus 'musan' is a part of others and has no train and test. Fetch one that has both.\n",
    )
    assert "is a part of others" in run(capsys, "plan", "--corpus", "musan")[2]
    assert (
        "is a part of other corpora" in run(capsys, "manifest", "--corpus", "musan", "--audio", "root", "--out", "m")[2]
    )
    (place / "root/vcmix.txt").unlink(missing_ok=True)
    code, _, err = run(capsys, "fetch")
    assert code == 1
    assert "trial list 'vc-mix' is missing" in err
    assert "seed trials vcmix" in err


def test_corpora_and_their_lists_are_listed(capsys: pytest.CaptureFixture[str], place: Path) -> None:
    code, out, _ = run(capsys, "corpus", "list")
    assert code == 0
    assert "vox1-o-cleaned: 37,611 trials, voxceleb1/veri_test2.txt" in out
    assert "paper: " in out


def test_a_plan_without_audio_goes_by_published_numbers(
    capsys: pytest.CaptureFixture[str], place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEED_DATA", str(place / "nowhere"))
    arguments = ["plan", "--params", PROJECT / "params/paper.yaml"]
    code, out, _ = run(capsys, *arguments)
    assert code == 0
    assert "152,246 x 16 crops │ published " in out
    assert "161,176 x 10 crops │ published, without VoxSRC2023_val/*.wav" in out
    assert "579,818 │ published" in out
    assert "5.0 GB" in out  # 152,246 x 16 vectors of 512 float32
    rates = ("10", "ecapa_seed=10")
    slow, fast = (run(capsys, *arguments, "--rate", rate)[1].split("extraction: ")[1] for rate in rates)
    assert float(slow.split()[0].replace(",", "")) > 3 * 152_246 * 16 / 10 / 3600
    assert slow != fast
    for wrong in ("none=3", "0", "fast"):
        code, _, err = run(capsys, *arguments, "--rate", wrong)
        assert code == 2, err


def test_vc_mix_is_the_non_targets_of_one_list_and_the_targets_of_another(tmp_path: Path) -> None:
    (tmp_path / "o.txt").write_text(vox_list())
    (tmp_path / "c.txt").write_text("model,test,label\nx/1,x/2,nontarget\nx/1,x/3,target\n")
    assert write_vcmix(tmp_path / "o.txt", tmp_path / "c.txt", tmp_path / "mix.txt") == (8, 1)
    lines = (tmp_path / "mix.txt").read_text().splitlines()
    assert lines[0] == "0 x/1 x/2"
    assert len(lines) == 9
    assert all(line.startswith("1 ") for line in lines[1:])
    (tmp_path / "c.txt").write_text("a b\n")
    with pytest.raises(TrialError, match="has no labels"):
        write_vcmix(tmp_path / "o.txt", tmp_path / "c.txt", tmp_path / "mix.txt")
    (tmp_path / "c.txt").write_text("1 a b\n")
    with pytest.raises(TrialError, match="has no non-targets"):
        write_vcmix(tmp_path / "o.txt", tmp_path / "c.txt", tmp_path / "mix.txt")
    assert len((tmp_path / "mix.txt").read_text().splitlines()) == 9
