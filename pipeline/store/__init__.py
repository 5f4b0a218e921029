"""Embedding stores: one Zarr group per encoder and set."""

from pipeline.store.embedding_store import EmbeddingStore

__all__ = ["EmbeddingStore"]
