"""Metrics, logs and traces. The other rooms call hooks; only this room knows the libraries."""
