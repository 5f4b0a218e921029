from pathlib import Path

import pytest
from pydantic import ValidationError
from ruamel.yaml import YAML

from pipeline.config.params import Params, read_params
from pipeline.config.recipes import recipe_for
from pipeline.config.train import Train
from pipeline.errors import ConfigError
from pipeline.utils.validation import validated

PROJECT = Path(__file__).parents[2]
ALIASES = "a0: &a0 [1]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 60))
"""Lists of lists: 2^59 numbers, if one follows all aliases."""


def test_the_parameter_file_is_valid_and_frozen() -> None:
    params = read_params(PROJECT / "params.yaml")
    assert params.train.learning_rate == 1e-3
    assert recipe_for(params, "train").crop == 200 * 160 + 240
    assert [view.name for view in recipe_for(params, "train").views] == ["clean", "noise", "music", "reverb"]
    with pytest.raises(ValidationError):
        params.seed = 1  # type: ignore[misc]


def test_the_built_in_defaults_are_those_of_the_parameter_file() -> None:
    written = read_params(PROJECT / "params.yaml").model_dump(exclude={"sets", "conditions"})
    assert Params().model_dump(exclude={"sets", "conditions"}) == written


def test_the_papers_parameters_are_valid_and_name_every_key() -> None:
    paper, default = (read_params(PROJECT / name).model_dump() for name in ("params/paper.yaml", "params.yaml"))
    written = YAML(typ="safe").load((PROJECT / "params/paper.yaml").read_text())
    for section in ("manifest", "extract", "train", "enhance", "score", "quality"):
        assert set(written[section]) == set(default[section])  # DVC misses a parameter that the file leaves out
    assert paper["train"]["network"] == {
        "predict": "sample",
        "precondition": "none",
        "blocks": 3,
        "width": 2,
        "dropout": 0.0,
    }
    assert (paper["extract"]["eval_crops"], paper["extract"]["eval_frames"], paper["extract"]["frames"]) == (
        10,
        400,
        200,
    )


def test_corpora_are_a_list_or_one_name() -> None:
    assert Params().corpus == ["demo"]
    assert Params.model_validate({"corpus": "mine"}).corpus == ["mine"]
    several = Params.model_validate({"corpus": ["a", "b"]})
    assert (several.corpus, several.tested_corpus) == (["a", "b"], "a")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("corpus: [a, b, a]\n", "corpus must differ from each other"),
        ("corpus: []\n", "corpus: List should have at least 1 item"),
        ("speed: 3\n", "speed: unknown key"),
        ("train: {learning_rat: 1}\n", "train.learning_rat: unknown key"),
        ("train: {network: {predict: noise}}\n", "train.network.predict: "),
        ("extract: {draws: '4'}\n", "extract.draws: Input should be a valid integer, got '4'"),
        ("extract: {draws: 0}\n", "extract.draws: "),
        ("extract: {views: {}}\n", "extract.views: "),
        ("extract: {views: {clean: [{kind: reverb}]}}\n", "extract.views: view 'clean': "),
        ("extract: {views: {n: []}}\n", "extract.views.n: "),
        ("extract: {views: {n: [noise]}}\n", "extract.views.n.0: must be a step, such as {kind: noise"),
        ("extract: {views: {n: [{kind: hum}]}}\n", "extract.views.n.0.kind: must be one of noise, music, babble"),
        ("extract: {views: {n: [{snr: [0, 15]}]}}\n", "extract.views.n.0.kind: Field required"),
        ("extract: {views: {n: [{kind: noise}]}}\n", "extract.views.n.0.snr: Field required"),
        ("extract: {views: {n: [{kind: noise, snr: [0]}]}}\n", "extract.views.n.0.snr: "),
        ("extract: {views: {n: [{kind: noise, snr: [9, 0]}]}}\n", "snr: must be [lowest, highest] SNR in dB"),
        ("extract: {views: {n: [{kind: noise, snr: [0, 9], snrs: 1}]}}\n", "extract.views.n.0.snrs: unknown key"),
        ("extract: {views: {n: [{kind: reverb, snr: [0, 9]}]}}\n", "extract.views.n.0.snr: unknown key"),
        ("extract: {views: {n: [{kind: reverb, probability: 0}]}}\n", "extract.views.n.0.probability: "),
        ("extract: {views: {n: [{kind: babble, snr: [0, 9], talkers: [0, 3]}]}}\n", "n.0.talkers: must be [fewest"),
        ("extract: {views: {n: [{kind: clip, percent: [5, 60]}]}}\n", "n.0.percent: must be [lowest, highest] %"),
        ("extract: {views: {n: [{kind: mp3, kbit: [33]}]}}\n", "n.0.kbit.0: Input should be 8, 16, 24"),
        (
            "extract: {views: {n: [{kind: opus, kbit: [5]}]}}\n",
            "n.0.kbit.0: Input should be greater than",
        ),
        (
            "extract: {views: {n: [{kind: vorbis, quality: [11]}]}}\n",
            "n.0.quality.0: Input should be less than",
        ),
        ("extract: {views: {n: [{one_of: []}]}}\n", "extract.views.n.0.one_of: "),
        ("extract: {views: {n: [{one_of: [{kind: phone, speed: 2}]}]}}\n", "views.n.0.one_of.0.speed: unknown key"),
        ("extract: {views: {n: [{one_of: [{kind: gsm}, {kind: phone}]}]}}\n", "add up to more than 1"),
        ("conditions: [noise5]\nsets: [train, noise5]\n", "conditions must hold 'clean'"),
        ("conditions: [clean, hum5]\nsets: [train, clean, hum5]\n", "unknown condition 'hum5'"),
        ("sets: [train]\n", "sets must be 'train' followed by the conditions"),
        ("score: {operating_points: []}\n", "score.operating_points: "),
        ("score: {operating_points: [{p_target: 1}]}\n", "score.operating_points.0.p_target: "),
        ("score: {operating_points: [{p_target: 0.1, cost: 1}]}\n", "operating_points.0.cost: unknown key"),
        ("score: {operating_points: [{p_target: 0.1}, {p_target: 0.1}]}\n", "score: operating_points must differ"),
        ("score: {operating_points: [{p_target: 0.1, c_fa: .inf}]}\n", "score.operating_points.0.c_fa: "),
        ("enhance: {timestep: 1000}\n", "enhance.timestep 1000: of train, timesteps are from 0 to 999"),
        ("train: {max_epochs: 0, network: {predict: sample}}\n", "untrained sample"),
        ("train: {objective: dae, network: {predict: v}}\n", "train: objective dae has no velocity to predict"),
        ("train: {objective: bridge, network: {predict: epsilon}}\n", "objective bridge has no noise to predict"),
        ("train: {objective: vmf-pl, loss: l2}\n", "objective vmf-pl has a loss of its own"),
        ("train: {objective: gap, scale: sampling}\n", "set scale to both"),
        ("train: {objective: dae}\nenhance: {steps: 3}\n", "enhance: objective dae takes one pass"),
        ("train: {objective: bridge}\nenhance: {noise: 1}\n", "objective bridge is trained without Gaussian noise"),
        ("train: {noisy_views: 0}\n", "train.noisy_views: must be null, a number from 1 up, or"),
        ("train: {noisy_views: []}\n", "train.noisy_views: must be null, a number from 1 up, or"),
        ("train: {noisy_views: noise}\n", "train.noisy_views: must be null, a number from 1 up, or"),
        ("train: {warmup: -1}\n", "train.warmup: "),
        ("enhance: {timestep: 9, steps: 11}\n", "11 steps do not fit below timestep 9"),
        ("enhance: {eta: 0.5}\n", "eta needs noise"),
        ("train: {threads: 100000}\n", "train.threads: Input should be less than or equal to 1024"),
        ("extract: {workers: 100000}\n", "extract.workers: Input should be less than or equal to 1024"),
        ("extract: {prefetch: 1000000000}\n", "extract.prefetch: Input should be less than or equal to"),
        ("extract: {batch: 1000000000}\n", "extract.batch: Input should be less than or equal to"),
        ("train: {learning_rate: .inf}\n", "train.learning_rate: Input should be a finite number"),
        ("train: {learning_rate: 1e999999}\n", "train.learning_rate: Input should be a finite number"),
        (f"seed: 0x{'f' * 50_000}\n", "a whole number of 200,000 bits"),
        (f"seed: {'9' * 50_000}\n", "not YAML"),
        (f"a: [{{b: [-0x{'f' * 5000}]}}]\n", "a whole number of 20,000 bits"),
        (ALIASES, "a0: unknown key"),
        ("- a\n", "must be a mapping"),
        ("a: [\n", "not YAML"),
        ("seed: 1\nseed: 2\n", "not YAML"),
    ],
)
def test_a_wrong_parameter_is_one_line_that_names_the_key(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "p.yaml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        read_params(tmp_path / "p.yaml")
    assert str(caught.value).startswith(str(tmp_path / "p.yaml"))
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_parameter_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        read_params(tmp_path / "p.yaml")


def test_numbers_that_python_cannot_print_are_one_line() -> None:
    with pytest.raises(ConfigError, match=r"here: batch_size: .* got a huge number"):
        validated(Train, {"batch_size": 1 << 200_000}, "here")
