"""`seed manifest`."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from stages.helpers.options import FOLDER, NEW, corpora_option, load_params, params_option, progress_bar

if TYPE_CHECKING:
    from pipeline.config.params import Params
    from pipeline.data.sets import FileInspector


@click.command()
@click.option("--corpus", help="Name of a corpus, to write the lists of its sets into the folder --out.")
@corpora_option
@click.option("--audio", type=FOLDER, help="Folder of the audio.  [default: data/audio/<corpus>]")
@click.option(
    "--join",
    type=FOLDER,
    help="Folder of <corpus>/<set>.csv, to join the lists of the parameter file's corpora in the folder --out.",
)
@click.option(
    "--pattern", help="Glob pattern below --audio, such as '*/*.wav', to list any audio files in the CSV file --out."
)
@click.option(
    "--speaker", help="With --pattern: regular expression for the path below --audio, whose group is the speaker."
)
@click.option("--out", type=NEW, required=True, help="Folder, or CSV file (with --pattern), to write.")
@params_option
def manifest(
    corpus: str | None,
    corpora: Path,
    audio: Path | None,
    join: Path | None,
    pattern: str | None,
    speaker: str | None,
    out: Path,
    params: Path | None,
) -> None:
    """List utterances with their speakers, durations (in seconds) and sha256.

    With --corpus, write <set>.csv for the sets of the parameter file, and <set>.augment.csv with the noise, music,
    rooms and talkers to mix into it. Paths are relative to the working folder. The first corpus of the parameter file
    is for training and testing; the others are for training alone, so only the set train is written. --join makes one
    list of the utterances of all corpora.
    """
    if sum(each is not None for each in (corpus, join, pattern)) != 1:
        raise click.UsageError("give either --corpus, --join, or --pattern with --audio")
    if pattern is not None:
        if audio is None:
            raise click.UsageError("--pattern needs --audio")
        _list_files(audio, pattern, speaker, out)
    elif join is not None:
        _join_corpora(load_params(params, {}), join, corpora, out)
    elif corpus is not None:
        _list_corpus(corpus, load_params(params, {}), corpora, audio or Path("data/audio") / corpus, out)


def _list_files(audio: Path, pattern: str, speaker: str | None, out: Path) -> None:
    from pipeline.data.corpus_files import list_utterances
    from pipeline.data.manifest import write_manifest
    from pipeline.data.sets import FileInspector

    rows = list_utterances(audio, pattern, speaker)
    with progress_bar("reading", len(rows)) as advance:
        described = FileInspector(lambda: advance(1))
        write_manifest(out, [described(row) for row in rows])
    click.echo(f"{out}: {len(rows):,} utterances of {len({row.speaker for row in rows} - {None}):,} speakers")
    _print_warnings(described, out)


def _list_corpus(corpus: str, settings: "Params", corpora: Path, audio: Path, out: Path) -> None:
    from pipeline.config.params import TRAIN
    from pipeline.config.recipes import recipe_for
    from pipeline.data.corpora import read_corpus
    from pipeline.data.sets import FileInspector, SetLimits, check_disjoint, write_set

    definition = read_corpus(corpora, corpus)
    cut = SetLimits(settings.manifest.max_speakers, settings.manifest.max_utterances)
    tests = [] if corpus in settings.corpus[1:] else settings.conditions
    with progress_bar("reading", None) as advance:
        described = FileInspector(lambda: advance(1))
        for name in (TRAIN, *tests):
            split = "train" if name == TRAIN else "test"
            count = write_set(definition, audio, split, name, recipe_for(settings, name), cut, out, described)
            click.echo(f"{out / name}.csv: {count:,} utterances")
    _print_warnings(described, out)
    if not definition.overlap:
        check_disjoint(out, TRAIN, tests)


def _join_corpora(settings: "Params", folder: Path, corpora: Path, out: Path) -> None:
    from pipeline.config.params import TRAIN
    from pipeline.data.corpora import read_corpus
    from pipeline.data.joined_sets import join_lists
    from pipeline.data.sets import check_disjoint

    counts = join_lists({name: folder / name for name in settings.corpus}, TRAIN, settings.conditions, out)
    if len(settings.corpus) > 1 and not read_corpus(corpora, settings.tested_corpus).overlap:
        check_disjoint(out, TRAIN, settings.conditions)
    for name, count in counts.items():
        click.echo(f"{out / name}.csv: {count:,} utterances")


def _print_warnings(files: "FileInspector", out: Path) -> None:
    """Print the number of files with a warning, and the first one."""
    if files.warnings:
        path, warning = next(iter(files.warnings.items()))
        where = f"see the column warning in {out}"
        click.echo(f"  {len(files.warnings):,} files with a warning, {where}; first: {path}: {warning}", err=True)
