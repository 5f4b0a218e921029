"""Enhance embeddings with a model that `seed export-model` wrote as ONNX. Needs only NumPy and ONNX Runtime.

    pip install numpy onnxruntime
    python examples/onnx_enhance.py seed.onnx raw.npy enhanced.npy

raw.npy holds embeddings [N, D] as the encoder returns them, not normalised. Compare enhanced embeddings by cosine, and
only with embeddings that the same model enhanced.
"""

import sys

import numpy as np
import onnxruntime

BATCH = 4096


def enhance(session: onnxruntime.InferenceSession, raw: np.ndarray) -> np.ndarray:
    """Enhance raw embeddings [N, D] in batches."""
    parts = [raw[start : start + BATCH] for start in range(0, len(raw), BATCH)]
    return np.concatenate([session.run(["enhanced"], {"embeddings": part})[0] for part in parts])


def main(model: str, source: str, target: str) -> None:
    """Enhance the embeddings of a file, and write them to another."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    metadata = session.get_modelmeta().custom_metadata_map
    raw = np.load(source).astype(np.float32, copy=False)
    dim = int(metadata["dim"])
    if raw.ndim != 2 or raw.shape[1] != dim or len(raw) == 0:
        sys.exit(f"{source}: holds {list(raw.shape)}, but {model} takes [N, {dim}] embeddings of {metadata['encoder']}")
    np.save(target, enhance(session, raw))
    print(f"{target}: {len(raw)} embeddings of {metadata['encoder']}, strength {metadata['strength']}")


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])
