"""One file per objective: its loss, inference and network, as `OBJECTIVE`."""
