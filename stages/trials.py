"""`seed trials`: build trial lists from other lists."""

from pathlib import Path

import click

from stages.helpers.options import NEW, corpora_option, load_params, params_option, root_option
from stages.helpers.trial_lists import find_trial_list


@click.group()
def trials() -> None:
    """Build a trial list from other lists."""


@trials.command()
@click.option("--vox1-o", default="vox1-o-cleaned", help="List with the targets, a file or a name in --corpora.")
@click.option(
    "--voxconverse", default="voxconverse-sv", help="List with the non-targets, a file or a name in --corpora."
)
@click.option("--out", type=NEW, help="List to write.  [default: the path of vc-mix in --corpora]")
@corpora_option
@root_option
@params_option
def vcmix(
    vox1_o: str, voxconverse: str, out: Path | None, corpora: Path, data_root: str | None, params: Path | None
) -> None:
    """Build VC-Mix from the targets of Vox1-O and the non-targets of VoxConverse."""
    from pipeline.data.corpora import find_data_root, read_corpora
    from pipeline.data.published_lists import find_list
    from pipeline.data.trials.vcmix import NONTARGETS, TARGETS, write_vcmix

    settings = load_params(params, {"data_root": data_root})
    first, second = (find_trial_list(name, corpora, settings.data_root).path for name in (vox1_o, voxconverse))
    if out is None:
        corpus, published = find_list(read_corpora(corpora), "vc-mix")
        out = find_data_root(corpus, settings.data_root) / published.path
    targets, nontargets = write_vcmix(first, second, out)
    click.echo(f"{out}: {targets:,} targets of {first}, {nontargets:,} non-targets of {second}")
    if (targets, nontargets) != (TARGETS, NONTARGETS):
        click.echo(
            f"  the published VC-Mix has {TARGETS:,} targets and {NONTARGETS:,} non-targets: results on this list"
            f" ({targets:,} and {nontargets:,}) cannot be compared with published ones",
            err=True,
        )
