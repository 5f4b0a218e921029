"""Trial lists given as a file or by name, and warnings about them."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from pipeline.data.corpora import PublishedList
    from pipeline.data.trials.lists import TrialList
    from pipeline.data.trials.streaming import SpooledTrials


@dataclass(frozen=True)
class NamedList:
    """The file of a trial list and, for one given by name, its published counts."""

    name: str
    path: Path
    published: "PublishedList | None" = None


def find_trial_list(name: str, corpora: Path, root: str | None) -> NamedList:
    """Find a list given as a file or by its name in the corpus definitions."""
    from pipeline.data.corpora import read_corpora
    from pipeline.data.published_lists import find_list, find_list_path
    from pipeline.errors import TrialError

    if Path(name).exists():
        return NamedList(name, Path(name))
    if not corpora.is_file():
        raise TrialError(f"{name}: no such file, and no corpus definitions {corpora} to look it up by name.")
    known = read_corpora(corpora)
    return NamedList(name, find_list_path(known, name, root), find_list(known, name)[1])


def warn_about_list(trials: "TrialList | SpooledTrials", named: NamedList) -> None:
    """Print what is odd about a list that can still be scored, on stderr."""
    from pipeline.data.published_lists import compare_counts

    odd = compare_counts(named.name, named.published, trials.counts) if named.published else None
    if odd:
        click.echo(f"  {odd}; they are scored as they are", err=True)
    if trials.duplicates:
        both = f", {trials.contradictions:,} pairs with both labels" if trials.contradictions else ""
        click.echo(f"  {named.path}: {trials.duplicates:,} trials repeat an earlier one{both}", err=True)
