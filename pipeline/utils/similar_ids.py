"""Ids that are alike, but not equal: the known id that an unknown one probably means, and their difference."""

import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence

_BLANKS = "blanks at an end"
_SEPARATORS = str.maketrans("\\_", "/-")

SPELLINGS: Mapping[str, Callable[[str], str]] = {
    _BLANKS: str.strip,
    "Unicode normalisation (NFC, NFD)": lambda name: unicodedata.normalize("NFC", name),
    "separators (\\ and /, _ and -)": lambda name: name.translate(_SEPARATORS),
    "case": str.lower,
}
"""Differences in spelling, and the function that removes each."""


def suggest_fix(
    names: Sequence[str], known: Sequence[str], ours: str = "the list", theirs: str = "the store"
) -> str | None:
    """Return a hint to fix one of some unknown ids, or None if no known id is like any of them.

    Ids are alike if they differ in leading folders, in the extension, and in nothing else but their `SPELLINGS`.

    Args:
        names: the unknown ids.
        known: the known ids.
        ours: holder of the unknown ids, for the message.
        theirs: holder of the known ids.
    """
    for kinds in ((), tuple(SPELLINGS)):  # first those that are spelt alike
        for name, other in _find_alike(names, known, kinds):
            differences = ", and ".join(_list_differences(name, other, kinds, ours, theirs))
            holder = f"The {theirs[4:]}" if theirs.startswith("the ") else theirs  # a path stays as it is
            return f"{holder} holds {other!r}: {differences}. Make both ids match."
    return None


def _find_alike(names: Iterable[str], known: Sequence[str], kinds: Sequence[str]) -> Iterable[tuple[str, str]]:
    """Yield pairs of a name and a known id that differ in leading folders, extension and some kinds of spelling."""
    stems = {name: _stem(_fold(name, kinds)) for name in names}
    by_ending: dict[str, list[str]] = {}  # so that one pass over millions of known ids serves all names
    for name, stem in stems.items():
        by_ending.setdefault(stem.rpartition("/")[2], []).append(name)
    for other, folded in zip(known, _fold_all(known, kinds), strict=True):
        other_stem = _stem(folded)
        for name in by_ending.get(other_stem.rpartition("/")[2], ()):
            if f"/{other_stem}".endswith(f"/{stems[name]}") or f"/{stems[name]}".endswith(f"/{other_stem}"):
                yield name, other


def _list_differences(name: str, other: str, kinds: Sequence[str], ours: str, theirs: str) -> list[str]:
    folded, other_folded = _fold(name, kinds), _fold(other, kinds)
    stem, other_stem = _stem(folded), _stem(other_folded)
    differences, more = [], len(other_stem) - len(stem)
    if more:
        longer, who = (other, theirs) if more > 0 else (name, ours)
        # Without the other kinds, which change no lengths, folders are shown as they are.
        differences.append(f"{who}'s ids begin with {_fold(longer, kinds[:2])[: abs(more)]!r}")
    own, extension = folded.removeprefix(stem), other_folded.removeprefix(other_stem)
    if own != extension:
        differences.append(f"{ours} has the extension {own!r}, {theirs} {extension!r}")
    needed = [kind for kind in kinds if not any(_find_alike([name], [other], [k for k in kinds if k != kind]))]
    if needed:
        differences.append(f"they differ in {' and in '.join(needed)}")
    return differences


def _fold_all(names: Sequence[str], kinds: Sequence[str]) -> Sequence[str]:
    """Return ids without differences of some kinds, as one text if they have no line breaks: that is much faster."""
    if not kinds:
        return names
    stripped = [name.strip() for name in names] if _BLANKS in kinds else names
    folded = _fold("\n".join(stripped), [kind for kind in kinds if kind != _BLANKS]).split("\n")
    return folded if len(folded) == len(names) else [_fold(name, kinds) for name in names]


def _fold(name: str, kinds: Iterable[str]) -> str:
    """Return an id without differences of some kinds."""
    for kind in kinds:
        name = SPELLINGS[kind](name)
    return name


def _stem(name: str) -> str:
    """Return an id without an extension such as .wav or .m4a."""
    stem, dot, suffix = name.rpartition(".")
    return stem if dot and len(suffix) <= 5 and suffix.isalnum() and not suffix.isdecimal() else name
