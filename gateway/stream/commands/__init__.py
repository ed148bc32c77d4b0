"""Requests to devices: whom this node hears them for, and the answers."""
