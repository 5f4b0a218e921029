"""Speaker Embedding Enhancement Diffusion: the library behind the `seed` commands."""
