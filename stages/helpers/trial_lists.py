"""Trial lists given by file or by name, and what is worth telling of them."""

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
    """A trial list's file; of one that was given by name also what was published of it."""

    name: str
    path: Path
    published: "PublishedList | None" = None


def named_list(given: str, corpora: Path, root: str | None) -> NamedList:
    """Find a list that is given as a file, else by its name in the corpus definitions."""
    from pipeline.data.corpora import read_corpora
    from pipeline.data.published_lists import find_list, find_list_path
    from pipeline.errors import TrialError

    if Path(given).exists():
        return NamedList(given, Path(given))
    if not corpora.is_file():
        raise TrialError(f"{given}: no such trial list, and no corpus definitions {corpora} to look the name up in.")
    known = read_corpora(corpora)
    return NamedList(given, find_list_path(known, given, root), find_list(known, given)[1])


def tell(read: "TrialList | SpooledTrials", given: NamedList) -> None:
    """Say on stderr what is odd about a list that can be scored all the same."""
    from pipeline.data.published_lists import compare_counts

    odd = compare_counts(given.name, given.published, read.counts) if given.published else None
    if odd:
        click.echo(f"  {odd}; they are scored as they are", err=True)
    if read.duplicates:
        both = f", {read.contradictions:,} pairs with both labels" if read.contradictions else ""
        click.echo(f"  {given.path}: {read.duplicates:,} trials repeat an earlier one{both}", err=True)
