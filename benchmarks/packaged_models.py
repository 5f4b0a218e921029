"""Train the packaged models again, and write them into the package: files, cards, checksums.

    python -m benchmarks.packaged_models --work FOLDER [--encoder ge2e]

Trains on speechocean762, commands and arabic, all moved to the mean of the first, with the views `noise` and `reverb`
and otherwise the parameters of params.yaml. The view `music` is left out, because the music at hand is under the GPL.
FOLDER has the stores that `benchmarks.transfer` makes. Prints the line of `pipeline.model.packaged.SHA256`.
"""

from pathlib import Path

import click
import torch

from pipeline.config.params import read_params
from pipeline.data.corpora import read_corpus
from pipeline.data.utterances import read_speakers
from pipeline.model import packaged
from pipeline.model.card import card
from pipeline.model.model_file import load_model, save_model
from pipeline.store.embedding_store import EmbeddingStore
from pipeline.training.aligned_stores import align_stores, join_speakers
from pipeline.training.train import train
from pipeline.utils.atomic import sha256_of, write_text

CORPORA = ("speechocean762", "commands", "arabic")
VIEWS = ["noise", "reverb"]
MAX_BYTES = 1_000_000
DATA = """
## Data, licences, limits of this packaged model

| training data | licence |
|---|---|
{rows}
| noise: ESC-10, folds 1 and 2 | CC BY 3.0 |
| rooms: simulated by pyroomacoustics | made by this project |

- Trained on all corpora moved to the mean of the first: **adapt it to your speech**, without labels, with 50 recordings
  (`seed adapt my/recordings --encoder {encoder} --out adapted.safetensors`) or 30 vectors (`enhancer.adapt(vectors)`,
  `seed enhance --adapt STORE`).
- docs/adaptation.md has error rates of such models on a corpus that they were not trained on.
- The speakers are Mandarin speakers of English, or say single words. Broadcasts, telephones and distant microphones
  were not tried.
- The weights are stored in half precision, for the timestep {timestep} only.
"""


@click.command()
@click.option("--work", type=click.Path(path_type=Path), required=True, help="Folder with the stores.")
@click.option("--encoder", default="ge2e", show_default=True)
def main(work: Path, encoder: str) -> None:
    """Train one model and write it."""
    params = read_params(Path("params.yaml"))
    torch.set_num_threads(1)
    stores = [EmbeddingStore.open(work / name / encoder / "train.zarr") for name in CORPORA]
    lists = [work / name / "manifests/train.csv" for name in CORPORA]
    speakers = [read_speakers(store, path) for store, path in zip(stores, lists, strict=True)]
    settings = params.train.model_copy(update={"noisy_views": VIEWS, "threads": 1})
    store = align_stores(stores)
    trained = train(store, settings, params.seed, params.enhance.timestep, join_speakers(speakers))
    out = Path(packaged.__file__).with_name(f"{encoder}.safetensors")
    save_model(out, trained.model, store.encoder(), trained.summary(), compact=True)
    size = out.stat().st_size
    assert size <= MAX_BYTES, f"{out}: {size:,} bytes"
    known = [read_corpus(Path("data/corpora.yaml"), name) for name in CORPORA]
    rows = "\n".join(f"| {corpus.title} | {corpus.licence} |" for corpus in known)
    text = card(load_model(out), f"{encoder}.safetensors").replace(
        f'load("{encoder}.safetensors", ', f'load("{encoder}", '
    )
    text = text.replace(
        "- This card names no licence: the licence depends on the recordings of the training, and on the encoder.\n", ""
    )
    with_data = text + DATA.format(rows=rows, timestep=params.enhance.timestep, encoder=encoder)
    write_text(out.with_suffix(".md"), with_data)
    click.echo(f'    "{encoder}": "{sha256_of(out)}",  # {size:,} bytes')


if __name__ == "__main__":
    main()
