"""Benchmarks and load tools. Every figure of the README comes from a command in here."""
