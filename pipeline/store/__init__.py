"""Embedding stores: one Zarr group per encoder and set."""
