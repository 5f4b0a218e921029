"""What of a corpus is there: files against published numbers, a sample of them read, and its trial lists."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline.audio.reading import read_audio
from pipeline.data.corpora import (
    ROLES,
    SIMULATED,
    Corpus,
    OneOrMore,
    as_list,
    data_root,
    find_files,
    find_fixed_folders,
)
from pipeline.data.published_lists import compare_counts, find_list_path, resolve_parts
from pipeline.data.trials.lists import count_trials
from pipeline.errors import AudioError, CorpusError, TrialError


@dataclass(frozen=True)
class InventoryItem:
    """Some files of a corpus, or one of its trial lists."""

    corpus: str
    what: str
    """The pattern below the root, or the list's name."""
    found: int
    """Files, or trials."""
    expected: int | None
    missing: str | None = None
    """What has to be mended, if anything."""
    remark: str | None = None
    """What is odd, but can be worked with."""


def prefix_patterns(corpus: Corpus, role: str, patterns: OneOrMore) -> list[str]:
    """Return a role's patterns as they are below the root."""
    folders = corpus.folders.get(role, corpus.folders["speech"] if role == "babble" else role)
    if isinstance(folders, str):
        return [(Path(folders) / pattern).as_posix() for pattern in as_list(patterns)]
    places = {Path(folder).name: folder for folder in folders}
    split = (pattern.partition("/") for pattern in as_list(patterns))
    return [(Path(places.get(first, first)) / rest).as_posix() for first, _, rest in split]


def list_split_patterns(corpus: Corpus, split: str, role: str) -> list[str]:
    """Return the patterns of one role of a split as they are below the root; none of simulated rooms."""
    found = getattr(getattr(corpus, split), role, None)
    return prefix_patterns(corpus, role, found) if found and found != SIMULATED else []


def count_published_files(corpora: Mapping[str, Corpus], name: str) -> dict[str, int | None]:
    """Return how many files a corpus and its parts should hold, by pattern."""
    return {pattern: count for part in resolve_parts(corpora, name).values() for pattern, count in part.files.items()}


def take_inventory(corpora: Mapping[str, Corpus], name: str, root: str | None, sample: int) -> Iterator[InventoryItem]:
    """Look at all that a corpus and its parts should hold, one after the other.

    Args:
        corpora: all definitions.
        name: the corpus to look at.
        root: the data root of the parameter file, see `corpora.data_root`.
        sample: files of each pattern to read.

    Raises:
        CorpusError: there is none of that name, or a pattern is none.
    """
    seen: set[str] = set()
    parts = resolve_parts(corpora, name)
    asked = corpora[name]
    # The parts come first: what they publish of a pattern holds for the whole as well.
    for part, corpus in {**{key: found for key, found in parts.items() if found is not asked}, name: asked}.items():
        own = [
            pattern
            for split in ("train", "test")
            for role in ROLES
            for pattern in list_split_patterns(corpus, split, role)
        ]
        for pattern in [*corpus.files, *own]:
            if pattern not in seen and not corpus.origin.synthesis:
                seen.add(pattern)
                yield _check_files(part, pattern, data_root(corpus, root), corpus.files.get(pattern), sample)
        for trials in corpus.lists if corpus is asked else (key for key in corpus.lists if key in asked.trials):
            yield _check_list(corpora, part, trials, root)


def _check_files(corpus: str, pattern: str, root: Path, expected: int | None, sample: int) -> InventoryItem:
    fixed = root.joinpath(*find_fixed_folders(pattern))
    if not fixed.is_dir():
        return InventoryItem(corpus, pattern, 0, expected, f"no folder {fixed}")
    files = sorted(find_files(root, pattern))
    if not files:
        return InventoryItem(
            corpus, pattern, 0, expected, f"no files {pattern} below {root}{_describe_other_files(root, pattern)}"
        )
    unreadable = []
    for path in files[:: max(1, len(files) // sample)][:sample]:
        try:
            read_audio(path)
        except (AudioError, OSError) as error:
            unreadable.append(str(error))
    missing = (
        f"{len(unreadable)} of {min(sample, len(files))} files unreadable, {unreadable[0]}" if unreadable else None
    )
    other = expected is not None and len(files) != expected
    return InventoryItem(
        corpus, pattern, len(files), expected, missing, "another number than published" if other else None
    )


def _describe_other_files(root: Path, pattern: str) -> str:
    """Say which files are in the place of those that a pattern looks for, such as .m4a for .wav."""
    place = Path(pattern)
    found = sorted({path.suffix for path in find_files(root, place.with_suffix(".*").as_posix())})
    return f", only {', '.join(found)}: convert them, or correct the pattern" if place.suffix and found else ""


def _check_list(corpora: Mapping[str, Corpus], corpus: str, name: str, root: str | None) -> InventoryItem:
    published = corpora[corpus].lists[name]
    try:
        found = count_trials(find_list_path(corpora, name, root))
    except CorpusError:
        return InventoryItem(corpus, name, 0, published.trials, f"no file {published.path}: {published.source}")
    except TrialError as error:
        return InventoryItem(corpus, name, 0, published.trials, str(error).rstrip("."))
    odd = compare_counts(name, published, found)
    return InventoryItem(corpus, name, found.trials, published.trials, None, odd)
