import hashlib
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.encoders.architectures.wavlm import (
    WavLMNetwork,
    adapt_unispeech,
    adapt_weight_norm,
    make_published_config,
)
from pipeline.encoders.architectures.wavlm_ecapa import WavLMEcapa, build_wavlm_ecapa
from pipeline.encoders.architectures.wavlm_xvector import WavLMXVector, build_wavlm_xvector
from pipeline.encoders.encoder import Encoder
from pipeline.errors import ConfigError, WeightsError
from pipeline.utils.checkpoint import drop_heads, find_tensors, load_state, read_checkpoint
from tests.encoders.oracles import randomised
from tests.references import reference, stand_in_for_torchaudio

State = dict[str, Tensor]
NORMS = pytest.mark.parametrize("norm", ["group", "layer"])  # as in base+ and as in large
OLD, NEW = ("weight_g", "weight_v"), ("parametrizations.weight.original0", "parametrizations.weight.original1")


def tiny(norm: str = "group", **changes: Any) -> Any:
    """A small configuration of the same structure, convolutions over time as published."""
    stand_in_for_torchaudio()
    transformers = pytest.importorskip("transformers")
    values = {
        "hidden_size": 24,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "intermediate_size": 40,
        "conv_dim": (8,) * 7,
        "num_conv_pos_embeddings": 16,
        "num_conv_pos_embedding_groups": 4,
        "num_buckets": 32,
        "max_bucket_distance": 40,
        "feat_extract_norm": norm,
        "do_stable_layer_norm": norm == "layer",
        "tdnn_dim": (16, 16, 16, 16, 28),
        "xvector_output_dim": 20,
        "use_weighted_layer_sum": True,
    }
    return transformers.WavLMConfig(**{**values, **changes})


def original(norm: str = "group", cfg: dict[str, object] | None = None) -> Any:
    """WavLM as its authors published it."""
    module = reference("TTS.vc.layers.freevc.wavlm.wavlm")
    small = {
        "encoder_layers": 3,
        "encoder_embed_dim": 24,
        "encoder_ffn_embed_dim": 40,
        "encoder_attention_heads": 4,
        "conv_feature_layers": "[(8,10,5)] + [(8,3,2)] * 4 + [(8,2,2)] * 2",
        "conv_pos": 16,
        "conv_pos_groups": 4,
        "num_buckets": 32,
        "max_distance": 40,
    }
    return module.WavLM(
        module.WavLMConfig(
            {
                "extractor_mode": "layer_norm" if norm == "layer" else "default",
                "layer_norm_first": norm == "layer",
                "relative_position_embedding": True,
                "gru_rel_pos": True,
                **(small if cfg is None else cfg),
            }
        )
    )


def shaken(module: nn.Module) -> Any:
    """The same weights at each call, and large enough that no part of the network is without effect."""
    randomised(module)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if parameter.ndim > 1 or name.endswith("layer_weights"):
                size = math.prod(parameter.shape[1:])
                parameter.copy_(torch.randn(parameter.shape, generator=generator) / math.sqrt(size))
    return module


def waves(*shape: int) -> Tensor:
    return 0.03 + 0.1 * torch.randn(*shape, generator=torch.Generator().manual_seed(2))


def s3prl_states(model: Any, wave: Tensor) -> list[Tensor]:
    """Hidden states as s3prl collects them: into each layer, and out of the encoder."""
    states: list[Tensor] = []
    for layer in model.encoder.layers:
        layer.register_forward_hook(lambda module, given, output: states.append(given[0].transpose(0, 1)))
    model.encoder.register_forward_hook(lambda module, given, output: states.append(output[0]))
    model.extract_features(wave, padding_mask=torch.zeros(wave.shape, dtype=torch.bool), mask=False)
    return states


def head_of(network: nn.Module) -> State:
    return {key: value for key, value in network.state_dict().items() if not key.startswith("wavlm.")}


def digest(state: State) -> str:
    return hashlib.sha256("\n".join(sorted(f"{k} {list(v.shape)}" for k, v in state.items())).encode()).hexdigest()


def ecapa(state: State, mean: Tensor) -> Tensor:
    """UniSpeech's head, recomputed from a checkpoint's tensors on the weighted mean [B, T, hidden] of layers."""

    def convolution(x: Tensor, name: str, padding: int = 0, dilation: int = 1) -> Tensor:
        return F.conv1d(x, state[f"{name}.weight"], state[f"{name}.bias"], padding=padding, dilation=dilation)

    def norm(x: Tensor, name: str) -> Tensor:
        kind = ("running_mean", "running_var", "weight", "bias")
        return F.batch_norm(x, *(state[f"{name}.{key}"] for key in kind))

    def pointwise(x: Tensor, name: str) -> Tensor:
        return norm(convolution(x, f"{name}.conv").relu(), f"{name}.bn")

    def linear(x: Tensor, name: str) -> Tensor:
        return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]

    x = mean.transpose(1, 2) + 1e-6
    x = (x - x.mean(2, keepdim=True)) / (x.var(2, keepdim=True, correction=0) + 1e-5).sqrt()
    x = norm(convolution(x, "layer1.conv", padding=2).relu(), "layer1.bn")
    blocks = []
    for number in (2, 3, 4):
        name, shortcut = f"layer{number}", x
        pieces = list(pointwise(x, f"{name}.Conv1dReluBn1").split(64, dim=1))
        for i in range(7):
            if i:
                pieces[i] = pieces[i] + pieces[i - 1]
            piece = convolution(pieces[i], f"{name}.Res2Conv1dReluBn.convs.{i}", number, number).relu()
            pieces[i] = norm(piece, f"{name}.Res2Conv1dReluBn.bns.{i}")
        x = pointwise(torch.cat(pieces, dim=1), f"{name}.Conv1dReluBn2")
        gate = linear(linear(x.mean(2), f"{name}.SE_Connect.linear1").relu(), f"{name}.SE_Connect.linear2").sigmoid()
        x = x * gate[:, :, None] + shortcut
        blocks.append(x)
    x = convolution(torch.cat(blocks, dim=1), "conv").relu()
    weights = convolution(convolution(x, "pooling.linear1").tanh(), "pooling.linear2").softmax(dim=2)
    mean = (weights * x).sum(2)
    deviation = ((weights * x**2).sum(2) - mean**2).clamp(min=1e-9).sqrt()
    return linear(norm(torch.cat([mean, deviation], dim=1), "bn"), "linear")


class TestEcapa:
    @pytest.mark.filterwarnings("ignore:Support for mismatched key_padding_mask")
    @NORMS
    @torch.inference_mode()
    def test_a_checkpoint_of_unispeech_gives_its_embeddings(self, norm: str, tmp_path: Path) -> None:
        config = tiny(norm)
        theirs, ours = shaken(original(norm)), WavLMEcapa(config).eval()
        head = head_of(shaken(WavLMEcapa(config)))
        path = tmp_path / "wavlm.pth"
        content = {
            **{f"feature_extract.model.{key}": value for key, value in theirs.state_dict().items()},
            **head,
            "loss_calculator.projection.weight": torch.zeros(3, 256),
        }
        torch.save({"model": content, "best_valid_eer": 100.0}, path)

        state = adapt_unispeech(find_tensors(read_checkpoint(path), path))
        load_state(ours, drop_heads(state, ours), str(path))

        wave = waves(2, 20_000)  # 62 frames, farther apart than the buckets tell
        normalised = F.layer_norm(wave, wave.shape[1:]) if norm == "layer" else wave
        states = s3prl_states(theirs, normalised)
        assert len(states) == 4
        for mine, its in zip(ours.hidden_states(ours.features(wave)), states, strict=True):
            torch.testing.assert_close(mine, its, atol=1e-4, rtol=1e-4)
        weights = head["feature_weight"].softmax(0)
        mean = (weights[:, None, None, None] * torch.stack(states)).sum(0)
        expected = ecapa(head, mean)
        assert expected.std() > 0.1
        torch.testing.assert_close(ours(wave), expected, atol=1e-4, rtol=1e-4)

    @pytest.mark.parametrize(
        ("states", "parameters", "expected"),
        [
            (13, 7_755_469, "140369157a836777eca6868585b07dbaee6d3e5be5e58921267fbafa6712886d"),
            (25, 8_410_841, "e8ca504481b6da3389a06e2a116815acb0beb7f811a7e41112854f407d601bb4"),
        ],
    )
    def test_names_and_sizes_are_the_published_ones(
        self, states: int, parameters: int, expected: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        tiny()
        with torch.device("meta"):
            network = WavLMEcapa(make_published_config(states))
        assert digest(head_of(network)) == expected
        named = network.named_parameters()
        assert sum(value.numel() for key, value in named if not key.startswith("wavlm.")) == parameters

        module = reference("TTS.vc.layers.freevc.wavlm.wavlm")
        monkeypatch.setattr(module, "init_bert_params", lambda part: None)  # does not go with the meta device
        large = {
            "encoder_layers": 24,
            "encoder_embed_dim": 1024,
            "encoder_ffn_embed_dim": 4096,
            "encoder_attention_heads": 16,
        }
        with torch.device("meta"):
            theirs = original("layer", large) if states == 25 else original("group", {})
        backbone = {f"feature_extract.model.{key}": value for key, value in theirs.state_dict().items()}
        adapted = adapt_unispeech(backbone)
        assert len(adapted) == len(backbone)
        assert digest({**adapted, **head_of(network)}) == digest(network.state_dict())
        if states == 25:
            assert len(network.state_dict()) == 710  # the published file has these and the loss's projection

    @pytest.mark.parametrize("states", [13, 25])
    def test_size_is_read_from_the_checkpoint(self, states: int) -> None:
        tiny()
        with torch.device("meta"):
            state = {"feature_weight": torch.empty(states), "linear.weight": torch.empty(192, 3072)}
            network = build_wavlm_ecapa(state)
        assert network.dim == 192
        assert len(network.feature_weight) == states
        assert network.normalise == (states == 25)

    def test_only_what_pretraining_used_is_left_out(self) -> None:
        config = tiny()
        network = WavLMEcapa(config)
        below = "feature_extract.model."
        state = {**network.state_dict(), f"{below}final_proj.weight": torch.zeros(2), f"{below}final_proj.bias": 0}
        state[f"{below}label_embs_concat"] = torch.zeros(2)
        load_state(network, adapt_unispeech(state), "a file")
        for name in ("quantizer.vars", "encoder.layers.0.self_attn.scale"):
            with pytest.raises(WeightsError, match="1 unexpected"):
                load_state(network, adapt_unispeech({**state, below + name: torch.zeros(2)}), "a file")


class TestXVector:
    @pytest.mark.parametrize("weighted", [True, False])
    @torch.inference_mode()
    def test_embeddings_are_those_of_transformers(self, weighted: bool, tmp_path: Path) -> None:
        config = tiny(use_weighted_layer_sum=weighted)
        theirs = shaken(sys.modules["transformers"].WavLMForXVector(config))
        path = tmp_path / "pytorch_model.bin"
        torch.save(theirs.state_dict(), path)
        ours = WavLMXVector(config).eval()
        state = adapt_weight_norm(find_tensors(read_checkpoint(path), path))
        assert {key.partition(".")[0] for key in state} >= {"classifier", "objective"}
        load_state(ours, drop_heads(state, ours), str(path))
        wave = waves(2, 20_000)
        expected = theirs(wave).embeddings
        assert expected.std() > 0.1
        torch.testing.assert_close(ours(wave), expected, atol=1e-4, rtol=1e-4)

    def test_names_and_sizes_are_the_published_ones(self) -> None:
        tiny()
        with torch.device("meta"):
            network = WavLMXVector()
        # microsoft/wavlm-base-plus-sv without its classifier and objective.
        assert digest(network.state_dict()) == "551215a3556791158339cedc633bd5a7a514038a9ecb88270bb897ec580bbc71"
        assert network.dim == 512

    def test_size_is_read_from_the_checkpoint(self) -> None:
        tiny()
        with torch.device("meta"):
            network = build_wavlm_xvector({"feature_extractor.weight": torch.empty(256, 3000)})
        assert network.dim == 256
        assert network.layer_weights is None


NETWORKS = pytest.mark.parametrize(
    ("build", "norm"), [(WavLMEcapa, "group"), (WavLMEcapa, "layer"), (WavLMXVector, "group")]
)


@NETWORKS
class TestBoth:
    def test_either_spelling_of_the_weight_norm_loads(self, build: Callable[[Any], WavLMNetwork], norm: str) -> None:
        config = tiny(norm)
        source = shaken(build(config))
        wave = waves(1, 8000)
        for adapt in (adapt_unispeech, adapt_weight_norm):
            for spelling in (OLD, NEW):
                state = {
                    key.replace(NEW[0], spelling[0]).replace(NEW[1], spelling[1]): value
                    for key, value in source.state_dict().items()
                }
                assert sum(key.endswith(spelling) for key in state) == 2
                network = build(config).eval()
                load_state(network, adapt(state), "a file")
                torch.testing.assert_close(network(wave), source(wave), atol=0, rtol=0)

    @pytest.mark.filterwarnings("ignore:.*degrees of freedom")
    def test_shortest_wave_gives_a_finite_embedding(self, build: Callable[[Any], WavLMNetwork], norm: str) -> None:
        network = shaken(build(tiny(norm)))
        assert network.min_samples == (720 if build is WavLMEcapa else 5200)
        encoder = Encoder(network, "wavlm", "wavlm", None)
        for wave in (waves(network.min_samples), torch.zeros(network.min_samples), waves(100)):
            assert encoder([wave]).isfinite().all()
        short = waves(1, network.min_samples - 1)
        try:
            result = network(short)
        except (ValueError, RuntimeError):
            return
        assert not result.isfinite().all()

    def test_a_batch_is_its_waves_one_by_one(self, build: Callable[[Any], WavLMNetwork], norm: str) -> None:
        encoder = Encoder(shaken(build(tiny(norm))), "wavlm", "wavlm", None)
        batch = [*waves(3, 9000), *(10 * waves(2, 6500))]
        together = encoder(batch)
        assert together.shape == (5, encoder.dim)
        torch.testing.assert_close(together, torch.cat([encoder([wave]) for wave in batch]), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(together, encoder(batch), atol=0, rtol=0)  # nothing is masked or dropped

    def test_half_precision(self, build: Callable[[Any], WavLMNetwork], norm: str) -> None:
        network = shaken(build(tiny(norm)))
        wave = [waves(9000)]
        exact = Encoder(network, "wavlm", "wavlm", None)(wave)
        half = Encoder(network, "wavlm", "wavlm", None, precision="bfloat16")(wave)
        assert F.cosine_similarity(exact, half).item() > 0.99

    def test_without_transformers(
        self, build: Callable[[Any], WavLMNetwork], norm: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "transformers", None)
        with pytest.raises(
            ConfigError, match=r"need transformers, which cannot .* pip install '\.\[wavlm\]' \(docs/install\.md\)$"
        ):
            build(None)
