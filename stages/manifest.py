"""`seed manifest`."""

from pathlib import Path

import click

from stages.helpers.options import FOLDER, NEW, corpora_option, load_params, params_option, progress_bar


@click.command()
@click.option("--corpus", help="Name of a corpus, to write the lists of all its sets into the folder --out.")
@corpora_option
@click.option("--audio", type=FOLDER, help="Folder of the audio.  [default: data/audio/<corpus>]")
@click.option(
    "--pattern", help="Without --corpus: glob pattern below --audio, such as '*/*.wav', to write one CSV file to --out."
)
@click.option(
    "--speaker", help="Without --corpus: regular expression for the path below --audio, whose group is the speaker."
)
@click.option("--out", type=NEW, required=True, help="Folder (with --corpus) or CSV file (with --pattern) to write.")
@params_option
def manifest(
    corpus: str | None,
    corpora: Path,
    audio: Path | None,
    pattern: str | None,
    speaker: str | None,
    out: Path,
    params: Path | None,
) -> None:
    """List utterances with their speakers, durations (in seconds) and sha256.

    With --corpus, write <set>.csv for every set of the parameter file, and <set>.augment.csv with the noise, music,
    rooms and talkers to mix into it. Paths are relative to the working folder.
    """
    if (corpus is None) == (pattern is None):
        raise click.UsageError("give either --corpus, or --pattern with --audio")
    if pattern is not None and audio is None:
        raise click.UsageError("--pattern needs --audio")
    from pipeline.config.params import TRAIN
    from pipeline.config.recipes import recipe_for
    from pipeline.data.corpora import read_corpus
    from pipeline.data.corpus_files import list_utterances
    from pipeline.data.manifest import write_manifest
    from pipeline.data.sets import FileInspector, SetLimits, check_disjoint, write_set

    if pattern is not None and audio is not None:
        rows = list_utterances(audio, pattern, speaker)
        with progress_bar("reading", len(rows)) as advance:
            described = FileInspector(lambda: advance(1))
            write_manifest(out, [described(row) for row in rows])
        click.echo(f"{out}: {len(rows):,} utterances of {len({row.speaker for row in rows} - {None}):,} speakers")
        return
    settings = load_params(params, {"corpus": corpus})
    definition = read_corpus(corpora, settings.corpus)
    source = audio or Path("data/audio") / settings.corpus
    cut = SetLimits(settings.manifest.max_speakers, settings.manifest.max_utterances)
    with progress_bar("reading", None) as advance:
        described = FileInspector(lambda: advance(1))
        for name in settings.sets:
            split = "train" if name == TRAIN else "test"
            count = write_set(definition, source, split, name, recipe_for(settings, name), cut, out, described)
            click.echo(f"{out / name}.csv: {count:,} utterances")
    if not definition.overlap:
        check_disjoint(out, TRAIN, settings.conditions)
