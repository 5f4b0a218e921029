"""Trial lists by name: where a published list lies, and whether it holds what it should."""

from collections.abc import Mapping
from pathlib import Path

from pipeline.data.corpora import Corpus, PublishedList, data_root
from pipeline.data.trials.lists import TrialCounts
from pipeline.errors import CorpusError


def resolve_parts(corpora: Mapping[str, Corpus], name: str) -> dict[str, Corpus]:
    """Return a corpus and the ones it is put together from, by name.

    Raises:
        CorpusError: there is none of a name.
    """
    names = [name, *(corpora[name].parts if name in corpora else [])]
    for part in names:
        if part not in corpora:
            raise CorpusError(f"no corpus {part!r}; there are {', '.join(corpora)}. Define it in data/corpora.yaml.")
    return {part: corpora[part] for part in names}


def find_list(corpora: Mapping[str, Corpus], name: str) -> tuple[Corpus, PublishedList]:
    """Return the list of a name, and the corpus that it is published with.

    Raises:
        CorpusError: there is none.
    """
    for corpus in corpora.values():
        if name in corpus.lists:
            return corpus, corpus.lists[name]
    known = ", ".join(name for corpus in corpora.values() for name in corpus.lists)
    raise CorpusError(f"no trial list {name!r}: neither a file nor one of {known or 'data/corpora.yaml'}.")


def find_list_path(corpora: Mapping[str, Corpus], name: str, root: str | None) -> Path:
    """Return where a list of a name lies, given the data root of the parameter file.

    Raises:
        CorpusError: there is none of that name, or it is not there.
    """
    corpus, published = find_list(corpora, name)
    path = data_root(corpus, root) / published.path
    if not path.is_file():
        raise CorpusError(f"trial list {name!r} is not there: no file {path}. Get it: {published.source}.")
    return path


def compare_counts(name: str, published: PublishedList, found: TrialCounts) -> str | None:
    """Say how a list's counts differ from those that are published, if they do."""
    pairs = ((found.trials, published.trials, "trials"), (found.targets, published.targets, "targets"))
    wrong = [
        f"{have:,} {what} where {want:,} are published"
        for have, want, what in pairs
        if have is not None and want is not None and have != want
    ]
    return f"trial list {name}: {' and '.join(wrong)}" if wrong else None
