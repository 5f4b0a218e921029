"""The encoder families of this library: one line for each file in `architectures`."""

from collections.abc import Mapping
from importlib import import_module

from pipeline.encoders.family import Family
from pipeline.utils.checkpoint import State

ARCHITECTURES = (
    "ge2e",
    "campplus",
    "resnet_se",
    "resnet_wespeaker",
    "ecapa_seed",
    "ecapa_speechbrain",
    "wavlm_ecapa",
    "wavlm_xvector",
)
"""Modules of `pipeline.encoders.architectures`, each with a tuple `FAMILIES`."""

FAMILIES: Mapping[str, Family] = {
    family.name: family
    for module in ARCHITECTURES
    for family in import_module(f"pipeline.encoders.architectures.{module}").FAMILIES
}
"""The families by name."""


def guess_families(state: State) -> list[str]:
    """Return the families whose checkpoints look like this."""
    return [name for name, family in FAMILIES.items() if all(key in state for key in family.signature)]
