"""Published trial lists by name: their paths, and checks of their sizes."""

from collections.abc import Mapping
from pathlib import Path

from pipeline.data.corpora import Corpus, PublishedList, find_data_root
from pipeline.data.trials.lists import TrialCounts
from pipeline.errors import CorpusError


def resolve_parts(corpora: Mapping[str, Corpus], name: str) -> dict[str, Corpus]:
    """Return a corpus and its parts, by name.

    Raises:
        CorpusError: a corpus is not defined.
    """
    names = [name, *(corpora[name].parts if name in corpora else [])]
    for part in names:
        if part not in corpora:
            raise CorpusError(f"no corpus {part!r}; there are {', '.join(corpora)}. Define it in data/corpora.yaml.")
    return {part: corpora[part] for part in names}


def find_list(corpora: Mapping[str, Corpus], name: str) -> tuple[Corpus, PublishedList]:
    """Return a trial list, and the corpus that it is published with.

    Raises:
        CorpusError: there is no list of that name.
    """
    for corpus in corpora.values():
        if name in corpus.lists:
            return corpus, corpus.lists[name]
    known = ", ".join(name for corpus in corpora.values() for name in corpus.lists)
    raise CorpusError(f"no trial list {name!r}: neither a file nor one of {known or 'data/corpora.yaml'}.")


def find_list_path(corpora: Mapping[str, Corpus], name: str, root: str | None) -> Path:
    """Return the path of a trial list, given the data root of the parameter file.

    Raises:
        CorpusError: there is no list of that name, or its file is missing.
    """
    corpus, published = find_list(corpora, name)
    path = find_data_root(corpus, root) / published.path
    if not path.is_file():
        raise CorpusError(f"trial list {name!r} is missing: no file {path}. Get it: {published.source}.")
    return path


def compare_counts(name: str, published: PublishedList, counts: TrialCounts) -> str | None:
    """Return the difference between the counts of a list and the published ones, or None if there is none."""
    pairs = ((counts.trials, published.trials, "trials"), (counts.targets, published.targets, "targets"))
    differences = [
        f"{number:,} {what} where {expected:,} are published"
        for number, expected, what in pairs
        if None not in (number, expected) and number != expected
    ]
    return f"trial list {name}: {' and '.join(differences)}" if differences else None
