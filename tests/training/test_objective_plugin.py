"""An objective of another package: one new file, named in params.yaml."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.config.train import Train
from pipeline.data.manifest import Utterance, write_manifest
from pipeline.errors import ConfigError
from pipeline.model.model_file import load_model
from pipeline.store.embedding_store import EmbeddingStore
from pipeline.utils.validation import validated
from stages.cli import main
from tests.plugins import install_plugin
from tests.training.test_train import make_store

PLUGIN = '''
from torch.nn.functional import cosine_similarity

from pipeline.config.objectives import ObjectiveTraits
from pipeline.model.diffusion.network import DiffusionNetwork
from pipeline.model.diffusion.objective import Objective, stack_inputs


class OwnNetwork(DiffusionNetwork):
    """The usual network under a name of its own."""


def cosine_loss(network, x0, views, t, noise, abar, distance):
    inputs, clean = stack_inputs(x0, views)
    return (1 - cosine_similarity(network(inputs, t.new_zeros(1)), clean)).mean()


def infer_once(network, x, sampling, abar, noise_draws):
    return network(x, x.new_zeros(1).long())


PLUGIN = Objective(cosine_loss, infer_once, OwnNetwork, ObjectiveTraits(one_pass=True, own_loss=True))
'''


def test_a_plugin_trains_and_enhances(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store, speakers = make_store(tmp_path / "s.zarr")
    write_manifest(tmp_path / "m.csv", [Utterance(name, f"{name}.wav", of) for name, of in speakers.items()])
    params = "train: {objective: cosine, contrast: 0.0, max_epochs: 5, batch_size: 32, threads: 1}\n"
    (tmp_path / "params.yaml").write_text(params)
    monkeypatch.chdir(tmp_path)
    train = ["train", "--store", "s.zarr", "--manifest", "m.csv", "--out", "m.safetensors"]
    with pytest.raises(SystemExit):
        main(train)
    assert "objective: must be one of seed, gap, dae, vmf-pl, bridge, got 'cosine'" in capsys.readouterr().err
    install_plugin(tmp_path / "site", monkeypatch, "objectives", "cosine", "plugin_cosine", PLUGIN)
    main(train)
    model = load_model(tmp_path / "m.safetensors").model
    assert model.settings.objective == "cosine"
    assert type(model.network).__name__ == "OwnNetwork"
    main(["enhance", "--store", "s.zarr", "--model", "m.safetensors", "--out", "e.zarr"])
    enhanced = EmbeddingStore.open(tmp_path / "e.zarr").read()
    assert np.isfinite(enhanced).all()
    assert np.abs(enhanced - store.read()).max() > 0.01
    main(["train", "--help"])
    assert "seed, gap, dae, vmf-pl, bridge, cosine" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"network": {"predict": "epsilon"}}, "objective cosine has no noise to predict"),
        ({"network": {"predict": "v"}}, "objective cosine has no velocity to predict"),
        ({"loss": "l2"}, "objective cosine has a loss of its own"),
        ({"objective": "other"}, "must be one of .*bridge, cosine, got 'other'"),
    ],
)
def test_the_traits_of_a_plugin_limit_its_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, object], message: str
) -> None:
    install_plugin(tmp_path, monkeypatch, "objectives", "cosine", "plugin_cosine", PLUGIN)
    with pytest.raises(ConfigError, match=message):
        validated(Train, {"objective": "cosine", "contrast": 0.0} | settings, "p.yaml")
    train = validated(Train, {"objective": "cosine", "contrast": 0.0}, "p.yaml")
    assert "takes one pass" in (train.find_sampling_conflict(3, 0) or "")


def test_an_object_that_is_no_objective_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_plugin(tmp_path, monkeypatch, "objectives", "odd", "plugin_odd", "PLUGIN = 3\n")
    with pytest.raises(ConfigError, match="objective odd: no plugin registers an Objective with traits"):
        validated(Train, {"objective": "odd"}, "p.yaml")
