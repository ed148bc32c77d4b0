"""Reads a stream in order, each message once."""
