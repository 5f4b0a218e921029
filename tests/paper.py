"""A tiny corpus laid out like those of the paper, for tests: a few seconds of each."""

from pathlib import Path

from tests.conftest import WriteVoice

SPEAKERS = {"id10001": 95, "id10270": 140, "id10271": 190, "id10272": 250}
UTTERANCES = [f"{speaker}/video{n}/0000{n}.wav" for speaker in SPEAKERS for n in (1, 2)]
CONVERSE = [f"abjxc/abjxc_0000{n}.wav" for n in range(2)]
SRC = ["00000.wav", "00001.wav"]

ALL_PAIRS = [(a, b) for a in UTTERANCES for b in UTTERANCES if a != b]


def vox_list() -> str:
    return "".join(f"{int(a[:7] == b[:7])} {a} {b}\n" for a, b in ALL_PAIRS)


def lay_out(root: Path, write_voice: WriteVoice) -> None:
    """Write recordings and lists below a data root as `data/corpora.yaml` has them; VC-Mix is left to be built."""
    for seed, name in enumerate(UTTERANCES):
        part = "dev" if name.startswith("id10001") else "test"
        write_voice(root / f"voxceleb1/{part}/wav" / name, SPEAKERS[name[:7]], 1.8, seed)
    for seed, (folder, names) in enumerate({"voxconverse_test_SV": CONVERSE, "VoxSRC2023_val": SRC}.items()):
        for number, name in enumerate(names):
            write_voice(root / folder / name, 120.0 + 60 * number, 1.8, 20 + 2 * seed + number)
    for seed, reader in enumerate(("19", "26", "27", "32")):
        for number, part in enumerate(("100", "360")):
            name = f"train-clean-{part}/{reader}{number}/1/{reader}{number}_1.wav"
            write_voice(root / "LibriTTS_R" / name, 100.0 + 30 * seed, 1.8, 10 + 2 * seed + number)
        write_voice(root / f"Libri-Light/small/{reader}/book/01_book.flac", 110.0 + 30 * seed, 1.8, 30 + seed)
    for seed, name in enumerate(("noise/free-sound/n.wav", "music/fma/m.wav", "speech/librivox/s.wav")):
        write_voice(root / "musan" / name, 300.0, 1.0, 60 + seed)
    write_voice(root / "RIRS_NOISES/simulated_rirs/smallroom/Room001/Room001-00001.wav", 400.0, 0.2, 50)
    lists = root / "voxceleb1"
    for name in ("veri_test2.txt", "list_test_all2.txt", "list_test_hard2.txt"):
        (lists / name).write_text(vox_list())
    (root / "VoxSRC2023_val.txt").write_text(f"1 {SRC[0]} {SRC[0]}\n0 {SRC[0]} {SRC[1]}\n")
    (root / "voxconverse_test_SV/trials_wo_overlap.txt").write_text(
        f"0 {CONVERSE[0]} {CONVERSE[1]}\n1 {CONVERSE[0]} {CONVERSE[0]}\n0 {CONVERSE[1]} {CONVERSE[0]}\n"
    )
