"""All kinds of corruption: the ones of this package, and those that other packages register."""

from collections.abc import Iterator

from pipeline.audio.augment.corruption import Corruption
from pipeline.audio.augment.corruptions.clipping import Clip
from pipeline.audio.augment.corruptions.codecs import Mp3, Opus, Vorbis
from pipeline.audio.augment.corruptions.noise import Babble, Music, Noise
from pipeline.audio.augment.corruptions.reverb import Reverb
from pipeline.audio.augment.corruptions.telephone import Gsm, Phone
from pipeline.errors import ConfigError
from pipeline.utils.plugins import find_plugins, load_plugin

CORRUPTIONS: dict[str, type[Corruption]] = {
    each.model_fields["kind"].default: each
    for each in (Noise, Music, Babble, Reverb, Phone, Gsm, Mp3, Opus, Vorbis, Clip)
}


def find_corruption(kind: str) -> type[Corruption]:
    """Return the class of a kind.

    Raises:
        ConfigError: no such kind is registered, or its plugin is not a corruption of that name.
    """
    if kind in CORRUPTIONS:
        return CORRUPTIONS[kind]
    plugin = load_plugin("corruptions", kind)
    if plugin is None:
        raise ConfigError(f"must be one of {', '.join(dict.fromkeys([*CORRUPTIONS, *find_plugins('corruptions')]))}")
    is_corruption = isinstance(plugin, type) and issubclass(plugin, Corruption)
    if not is_corruption or plugin.model_fields["kind"].default != kind:
        raise ConfigError(f"plugin {kind} (speaker_seed.corruptions): {plugin!r} is not a Corruption of kind {kind!r}")
    return plugin  # type: ignore[no-any-return]


def all_corruptions() -> Iterator[type[Corruption]]:
    """Yield the classes of all kinds; plugins come last, and each is imported when it is reached."""
    yield from CORRUPTIONS.values()
    yield from (find_corruption(kind) for kind in find_plugins("corruptions") if kind not in CORRUPTIONS)
