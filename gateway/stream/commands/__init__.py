"""Requests to devices: for which devices this node hears them, and the answers."""
