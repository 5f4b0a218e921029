"""One thin click command a file over the library in `pipeline`."""
