"""What of a corpus is there: files against published numbers, a sample of them read, and its trial lists."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline.audio.reading import read_audio
from pipeline.data.corpora import ROLES, SIMULATED, Corpus, Patterns, data_root, find_files, fixed_part, listed
from pipeline.data.published_lists import difference, list_path, parts_of
from pipeline.data.trials.lists import count_trials
from pipeline.errors import AudioError, CorpusError, TrialError


@dataclass(frozen=True)
class Holding:
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


def below_root(corpus: Corpus, role: str, patterns: Patterns) -> list[str]:
    """Return a role's patterns as they are below the root."""
    folders = corpus.folders.get(role, corpus.folders["speech"] if role == "babble" else role)
    if isinstance(folders, str):
        return [(Path(folders) / pattern).as_posix() for pattern in listed(patterns)]
    places = {Path(folder).name: folder for folder in folders}
    split = (pattern.partition("/") for pattern in listed(patterns))
    return [(Path(places.get(first, first)) / rest).as_posix() for first, _, rest in split]


def split_patterns(corpus: Corpus, split: str, role: str) -> list[str]:
    """Return the patterns of one role of a split as they are below the root; none of simulated rooms."""
    found = getattr(getattr(corpus, split), role, None)
    return below_root(corpus, role, found) if found and found != SIMULATED else []


def published_files(corpora: Mapping[str, Corpus], name: str) -> dict[str, int | None]:
    """Return how many files a corpus and its parts should hold, by pattern."""
    return {pattern: count for part in parts_of(corpora, name).values() for pattern, count in part.files.items()}


def holdings(corpora: Mapping[str, Corpus], name: str, root: str | None, sample: int) -> Iterator[Holding]:
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
    parts = parts_of(corpora, name)
    asked = corpora[name]
    # The parts come first: what they publish of a pattern holds for the whole as well.
    for part, corpus in {**{key: found for key, found in parts.items() if found is not asked}, name: asked}.items():
        own = [
            pattern for split in ("train", "test") for role in ROLES for pattern in split_patterns(corpus, split, role)
        ]
        for pattern in [*corpus.files, *own]:
            if pattern not in seen and not corpus.origin.synthesis:
                seen.add(pattern)
                yield _files(part, pattern, data_root(corpus, root), corpus.files.get(pattern), sample)
        for trials in corpus.lists if corpus is asked else (key for key in corpus.lists if key in asked.trials):
            yield _list(corpora, part, trials, root)


def _files(corpus: str, pattern: str, root: Path, expected: int | None, sample: int) -> Holding:
    fixed = root.joinpath(*fixed_part(pattern))
    if not fixed.is_dir():
        return Holding(corpus, pattern, 0, expected, f"no folder {fixed}")
    files = sorted(find_files(root, pattern))
    if not files:
        return Holding(corpus, pattern, 0, expected, f"no files {pattern} below {root}{_others(root, pattern)}")
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
    return Holding(corpus, pattern, len(files), expected, missing, "another number than published" if other else None)


def _others(root: Path, pattern: str) -> str:
    """Say which files are in the place of those that a pattern looks for, such as .m4a for .wav."""
    place = Path(pattern)
    found = sorted({path.suffix for path in find_files(root, place.with_suffix(".*").as_posix())})
    return f", only {', '.join(found)}: convert them, or correct the pattern" if place.suffix and found else ""


def _list(corpora: Mapping[str, Corpus], corpus: str, name: str, root: str | None) -> Holding:
    published = corpora[corpus].lists[name]
    try:
        found = count_trials(list_path(corpora, name, root))
    except CorpusError:
        return Holding(corpus, name, 0, published.trials, f"no file {published.path}: {published.source}")
    except TrialError as error:
        return Holding(corpus, name, 0, published.trials, str(error).rstrip("."))
    odd = difference(name, published, found)
    return Holding(corpus, name, found.trials, published.trials, None, odd)
