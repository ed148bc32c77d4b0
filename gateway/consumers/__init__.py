"""Processes that read the stream and carry events on: to a database, to files."""
