"""Embeddings from elsewhere and to elsewhere: one module a format, and what matches, checks and stores them."""
