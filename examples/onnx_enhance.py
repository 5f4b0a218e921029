"""Enhance embeddings with a model that `seed export-model` wrote as ONNX: NumPy and ONNX Runtime are all it takes.

    pip install numpy onnxruntime
    python examples/onnx_enhance.py seed.onnx raw.npy enhanced.npy

raw.npy holds the encoder's own embeddings [N, D], not normalised. Enhanced ones are to be compared, by cosine, with
ones that the same file enhanced.
"""

import sys

import numpy as np
import onnxruntime

BATCH = 4096


def enhance(session: onnxruntime.InferenceSession, raw: np.ndarray) -> np.ndarray:
    """Return enhanced embeddings [N, D] of raw ones [N, D], some thousands at a time."""
    parts = [raw[start : start + BATCH] for start in range(0, len(raw), BATCH)]
    return np.concatenate([session.run(["enhanced"], {"embeddings": part})[0] for part in parts])


def main(model: str, source: str, target: str) -> None:
    """Read vectors, enhance them, write them, and say by what."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    about = session.get_modelmeta().custom_metadata_map
    raw = np.load(source).astype(np.float32, copy=False)
    dim = int(about["dim"])
    if raw.ndim != 2 or raw.shape[1] != dim or len(raw) == 0:
        sys.exit(f"{source}: holds {list(raw.shape)}, but {model} takes [N, {dim}], embeddings of {about['encoder']}")
    np.save(target, enhance(session, raw))
    print(f"{target}: {len(raw)} embeddings of {about['encoder']}, strength {about['strength']}")


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])
