"""Trial lists given as a file or by name, and warnings about them."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from pipeline.config.score import Score
    from pipeline.data.corpora import PublishedList
    from pipeline.data.trials.lists import TrialList
    from pipeline.data.trials.streaming import SpooledTrials


@dataclass(frozen=True)
class NamedList:
    """The file of a trial list and, for one given by name, its published counts."""

    name: str
    path: Path
    published: "PublishedList | None" = None

    def max_left_out(self, settings: "Score") -> int | None:
        """Return the maximum number of trials that may be left out: by default none of a published list; None: any."""
        return 0 if settings.max_left_out is None and self.published else settings.max_left_out


def find_trial_list(name: str, corpora: Path, root: str | None) -> NamedList:
    """Find a list given as a file or by its name in the corpus definitions."""
    from pipeline.data.corpora import read_corpora
    from pipeline.data.published_lists import find_list, find_list_path
    from pipeline.errors import TrialError
    from pipeline.utils.inputs import take_input

    if Path(name).exists():
        return NamedList(name, take_input(Path(name)))
    if not corpora.is_file():
        raise TrialError(f"{name}: no such file, and no corpus definitions {corpora} to look it up by name.")
    known = read_corpora(corpora)
    return NamedList(name, find_list_path(known, name, root), find_list(known, name)[1])


def find_published(name: str, corpora: Path) -> "PublishedList | None":
    """Return what the corpus definitions say of the list of a name; None if they do not name it."""
    from pipeline.data.corpora import read_corpora

    lists = (corpus.lists for corpus in read_corpora(corpora).values()) if corpora.is_file() else ()
    return next((known[name] for known in lists if name in known), None)


def warn_about_list(trials: "TrialList | SpooledTrials", named: NamedList) -> None:
    """Print what is odd about a list that can still be scored, on stderr."""
    from pipeline.data.published_lists import compare_counts

    odd = compare_counts(named.name, named.published, trials.counts) if named.published else None
    if odd:
        click.echo(f"  {odd}; they are scored as they are", err=True)
    if trials.duplicates:
        both = f", {trials.contradictions:,} pairs with both labels" if trials.contradictions else ""
        click.echo(f"  {named.path}: {trials.duplicates:,} trials repeat an earlier one{both}", err=True)
