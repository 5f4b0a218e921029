"""Make the tables of docs/comparison.md: what helps, and by how much, on a corpus that the pipeline has processed.

    python -m benchmarks.comparison [--encoder ge2e --encoder campplus] [--grid variants …] [--page docs/comparison.md]

For every encoder, `seed sweep` runs the grids of params/comparison. The grid of draws needs a store of eight draws,
which is extracted into data/comparison/<encoder>. The tables of all encoders go below the marker in the page. Beside
the page go a CSV with one row per run (all conditions, costs and intervals) and a picture of the frontier. Runs whose
results are in results/comparison are not repeated. Tables of grids that were not run are made from the CSVs beside the
page.
"""

import csv
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import altair as alt
import click
import numpy as np
from ruamel.yaml import YAML

from pipeline.utils.atomic import write_text
from pipeline.utils.charts import write_svg

SWEEPS = {
    "variants": "One change at a time",
    "objectives": "Objective by prediction: the other combinations",
    "frontier": "The frontier: noise against clean speech",
    "size": "The size of the network",
    "draws": "Draws of each utterance",
}
"""Titles of the tables, by grid."""
GRIDS, MORE, OUT = Path("params/comparison"), Path("data/comparison"), Path("results/comparison")
MARKER = "<!-- Tables from here on: python -m benchmarks.comparison -->"
CHANGED = {"train": {"threads": 1, "folds": 0}, "score": {"max_trials": 200_000, "bootstrap": 100}}
"""Changes to params.yaml: one thread, to run encoders in parallel, and less of what takes most of the time."""
COLUMNS = {
    "held-out": ("held_out_clean_eer", "held_out_noisy_eer"),
    "test": ("clean eer", "mean noisy eer"),
}
LINES = {("", ""): "default", ("dae", ""): "dae", ("", "0"): "linear map alone", ("", "60"): "the paper's recipe"}
"""Names of the lines in the picture, by objective and epochs if these differ from params.yaml."""
Row = Mapping[str, str]


@click.command()
@click.option("--encoder", "encoders", multiple=True, default=("ge2e", "campplus"), show_default=True)
@click.option("--page", type=click.Path(path_type=Path), default="docs/comparison.md", show_default=True)
@click.option(
    "--grid", "grids", multiple=True, type=click.Choice(list(SWEEPS)), help="Grid to run; repeatable.  [default: all]"
)
@click.option("--tables-only", is_flag=True, help="Write the tables of existing results, and run nothing.")
def main(encoders: tuple[str, ...], page: Path, grids: tuple[str, ...], tables_only: bool) -> None:
    """Run the sweeps, and write the tables."""
    yaml = YAML()
    params = yaml.load(Path("params.yaml").read_text(encoding="utf-8"))
    for section, values in CHANGED.items():
        params[section] |= values
    OUT.mkdir(parents=True, exist_ok=True)
    with (OUT / "params.yaml").open("w", encoding="utf-8") as file:
        yaml.dump(params, file)
    for encoder in () if tables_only else encoders:
        for grid in grids or SWEEPS:
            store = training_store(encoder, grid)
            lists = ("--store-manifest", "data/manifests/train.csv", "--manifest", "data/manifests/clean.csv")
            raw = ("--conditions", f"data/embeddings/{encoder}", "--params", OUT / "params.yaml")
            seed("sweep", GRIDS / f"{grid}.yaml", "--store", store, *lists, *raw, "--out", OUT / encoder / grid)
    tables = []
    for grid in SWEEPS:
        found = {encoder: csv_of(encoder, grid, page) for encoder in encoders}
        found = {encoder: path for encoder, path in found.items() if path.exists()}
        if not found:
            continue
        runs = {encoder: list(csv.DictReader(path.open())) for encoder, path in found.items()}
        picture = "![Clean against noisy EER](pictures/frontier.svg)\n\n" if grid == "frontier" else ""
        tables.append(f"## {SWEEPS[grid]}\n\n{picture}{table(runs)}")
        if picture:
            draw(runs, page.parent / "pictures/frontier.svg")
        for encoder, path in found.items():
            write_text(page.parent / "comparison" / f"{encoder}-{grid}.csv", path.read_text(encoding="utf-8"))
    before = page.read_text(encoding="utf-8").split(MARKER)[0] if page.exists() else "# Comparison\n\n"
    write_text(page, f"{before}{MARKER}\n\n" + "\n".join(tables))
    print(f"{page}: written")


def csv_of(encoder: str, grid: str, page: Path) -> Path:
    """Return the CSV of a sweep, or the one beside the page if the sweep was not run here."""
    ours = OUT / encoder / grid / "sweep.csv"
    return ours if ours.exists() else page.parent / "comparison" / f"{encoder}-{grid}.csv"


def training_store(encoder: str, grid: str) -> Path:
    """Return the training store of a grid, and extract it if necessary."""
    if grid != "draws":
        return Path(f"data/embeddings/{encoder}/train.zarr")
    lists = ("--manifest", "data/manifests/train.csv", "--augment", "data/manifests/train.augment.csv")
    out = MORE / encoder / "train.zarr"
    seed("extract", "--encoder", encoder, "--set", "train", *lists, "--params", "params/eight.yaml", "--out", out)
    return out


def table(runs: Mapping[str, Sequence[Row]]) -> str:
    """Return the runs of several encoders, averaged over seeds, as a Markdown table."""
    first = next(iter(runs.values()))
    names = list(first[0])[: list(first[0]).index("seed")]
    head = [f"{encoder} {where}" for encoder in runs for where in COLUMNS]
    head += [f"{encoder} train, s" for encoder in runs] + [f"{encoder} µs a vector" for encoder in runs]
    lines = [f"| {' | '.join(['parameters', *head])} |", "|---" + "|---:" * len(head) + "|"]
    for wanted in dict.fromkeys(tuple(row[name] for name in names) for row in first):
        same = {
            encoder: [row for row in rows if tuple(row.get(name, "") for name in names) == wanted]
            for encoder, rows in runs.items()
        }
        cells = [" / ".join(spread(rows, name) for name in pair) for rows in same.values() for pair in COLUMNS.values()]
        cells += [mean(rows, "train_seconds") for rows in same.values()]
        cells += [mean(rows, "enhance_us") for rows in same.values()]
        lines.append(f"| {format_changes(dict(zip(names, wanted, strict=True)))} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def draw(runs: Mapping[str, Sequence[Row]], path: Path) -> None:
    """Plot clean against noisy test EERs of all encoders, with one line per system over its strengths."""
    panels = []
    for encoder, rows in runs.items():
        lines: dict[tuple[str, str], list[Row]] = {}
        for row in rows:
            parameters = {name: value for name, value in row.items() if name.startswith("train.") and value}
            name = LINES.get((parameters.get("train.objective", ""), parameters.get("train.max_epochs", "")))
            name = f"{name}, L1 alone" if name == "dae" and "train.contrast" in parameters else str(name)
            lines.setdefault((name, row["enhance.strength"]), []).append(row)
        points = []
        for place, ((name, _), same) in enumerate(lines.items()):
            clean, noisy = (float(np.mean([float(row[column]) for row in same])) for column in COLUMNS["test"])
            points.append({"line": name, "strength": place, "x": clean, "y": noisy})
        panel = alt.Chart(alt.Data(values=points), title=encoder, width=360, height=290).mark_line(point=True)
        panels.append(
            panel.encode(
                alt.X("x:Q", title="EER, clean, %", scale=alt.Scale(zero=False)),
                alt.Y("y:Q", title="mean EER, noisy, %", scale=alt.Scale(zero=False)),
                alt.Color("line:N", title=None, sort=None),
                alt.Order("strength:Q"),
            )
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_svg(path, alt.hconcat(*panels).to_dict())


def format_changes(parameters: Mapping[str, str]) -> str:
    """Return the differences from params.yaml or, for the paper's recipe, from that recipe."""
    given = {name: value for name, value in parameters.items() if value}
    recipe = given.get("train.max_epochs") == "60"
    shown = {name: value for name, value in given.items() if not recipe or name.startswith("enhance.")}
    cells = (["the paper's recipe"] if recipe else []) + [f"`{name}={value}`" for name, value in shown.items()]
    return ", ".join(cells) or "the defaults"


def spread(rows: Sequence[Row], name: str) -> str:
    """Return the mean over seeds and half their range as text."""
    known = [float(row[name]) for row in rows if row[name]]
    return f"{np.mean(known):.2f} ± {np.ptp(known) / 2:.2f}" if known else "–"


def mean(rows: Sequence[Row], name: str) -> str:
    """Return the mean over seeds as text."""
    known = [float(row[name]) for row in rows if row[name]]
    return f"{np.mean(known):.0f}" if known else "–"


def seed(*arguments: object) -> None:
    """Run a `seed` command, and stop if it fails."""
    subprocess.run([sys.executable, "-m", "stages.cli", *map(str, arguments)], check=True)


if __name__ == "__main__":
    main()
