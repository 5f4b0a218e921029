"""Inventory of a corpus: its files against published numbers, a sample of them read, and its trial lists."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from pipeline.audio.reading import read_recording
from pipeline.data.corpora import ROLES, SIMULATED, Corpus, OneOrMore, as_list, find_data_root
from pipeline.data.corpus_files import find_files, find_fixed_folders
from pipeline.data.published_lists import compare_counts, find_list_path, resolve_parts
from pipeline.data.trials.lists import count_trials
from pipeline.errors import AudioError, CorpusError, TrialError
from pipeline.utils.shortage import SCARCE, raise_shortage


@dataclass(frozen=True)
class InventoryItem:
    """The files of one pattern of a corpus, or one of its trial lists."""

    corpus: str
    name: str
    """The pattern below the root, or the name of the list."""
    count: int
    """Number of files, or of trials."""
    expected: int | None
    problem: str | None = None
    """The problem to fix, if there is one."""
    remark: str | None = None
    """An oddity that does not stop work."""


def prefix_patterns(corpus: Corpus, role: str, patterns: OneOrMore) -> list[str]:
    """Return the patterns of a role with its folders in front, so that they lie below the root."""
    folders = corpus.folders.get(role, corpus.folders["speech"] if role == "babble" else role)
    if isinstance(folders, str):
        return [(Path(folders) / pattern).as_posix() for pattern in as_list(patterns)]
    by_name = {Path(folder).name: folder for folder in folders}
    split = (pattern.partition("/") for pattern in as_list(patterns))
    return [(Path(by_name.get(first, first)) / rest).as_posix() for first, _, rest in split]


def list_split_patterns(corpus: Corpus, split: str, role: str) -> list[str]:
    """Return the patterns of one role of a split below the root; none for simulated rooms."""
    patterns = getattr(getattr(corpus, split), role, None)
    return prefix_patterns(corpus, role, patterns) if patterns and patterns != SIMULATED else []


def count_published_files(corpora: Mapping[str, Corpus], name: str) -> dict[str, int | None]:
    """Return the published numbers of files of a corpus and its parts, by pattern."""
    return {pattern: count for part in resolve_parts(corpora, name).values() for pattern, count in part.files.items()}


def take_inventory(corpora: Mapping[str, Corpus], name: str, root: str | None, sample: int) -> Iterator[InventoryItem]:
    """Check all files and lists that a corpus and its parts should hold, one after the other.

    `root` is the data root of the parameter file, see `corpora.find_data_root`. `sample` files are read
    for each pattern.

    Raises:
        CorpusError: there is no corpus of that name, or a pattern is invalid.
    """
    seen: set[str] = set()
    parts = resolve_parts(corpora, name)
    whole = corpora[name]
    # The parts come first, because their published number for a pattern also holds for the whole.
    for part, corpus in {**{key: part for key, part in parts.items() if part is not whole}, name: whole}.items():
        used = [list_split_patterns(corpus, split, role) for split in ("train", "test") for role in ROLES]
        for pattern in chain(corpus.files, *used):
            if pattern not in seen and not corpus.origin.synthesis:
                seen.add(pattern)
                yield _check_files(part, pattern, find_data_root(corpus, root), corpus.files.get(pattern), sample)
        for trials in corpus.lists if corpus is whole else (key for key in corpus.lists if key in whole.trials):
            yield _check_list(corpora, part, trials, root)


def _check_files(corpus: str, pattern: str, root: Path, expected: int | None, sample: int) -> InventoryItem:
    fixed = root.joinpath(*find_fixed_folders(pattern))
    if not fixed.is_dir():
        return InventoryItem(corpus, pattern, 0, expected, f"no folder {fixed}")
    files = sorted(find_files(root, pattern))
    if not files:
        others = _describe_other_files(root, pattern)
        return InventoryItem(corpus, pattern, 0, expected, f"no files {pattern} below {root}{others}")
    unreadable, odd = [], []
    for path in files[:: max(1, len(files) // sample)][:sample]:
        try:
            if (warning := read_recording(path).warning) is not None:
                odd.append(f"{path}: {warning}")
        except (AudioError, OSError) as error:
            raise_shortage(error, path, SCARCE)
            unreadable.append(str(error))
    read = min(sample, len(files))
    problem = f"{len(unreadable)} of {read} files unreadable, {unreadable[0]}" if unreadable else None
    remarks = [] if expected in (None, len(files)) else ["another number than published"]
    remarks += [f"{len(odd)} of {read} files with a warning, first: {odd[0]}"] if odd else []
    remark = "; ".join(remarks) or None
    return InventoryItem(corpus, pattern, len(files), expected, problem, remark)


def _describe_other_files(root: Path, pattern: str) -> str:
    # Files of another type, such as .m4a instead of .wav.
    any_type = Path(pattern).with_suffix(".*").as_posix()
    suffixes = sorted({path.suffix for path in find_files(root, any_type)})
    others = f", only {', '.join(suffixes)}: convert them, or correct the pattern"
    return others if Path(pattern).suffix and suffixes else ""


def _check_list(corpora: Mapping[str, Corpus], corpus: str, name: str, root: str | None) -> InventoryItem:
    published = corpora[corpus].lists[name]
    try:
        counts = count_trials(find_list_path(corpora, name, root))
    except CorpusError:
        return InventoryItem(corpus, name, 0, published.trials, f"no file {published.path}: {published.source}")
    except TrialError as error:
        return InventoryItem(corpus, name, 0, published.trials, str(error).rstrip("."))
    remark = compare_counts(name, published, counts)
    return InventoryItem(corpus, name, counts.trials, published.trials, None, remark)
