"""Benchmarks: a section measures one thing and judges it."""
