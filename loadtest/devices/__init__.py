"""Devices that put a load on a gateway, with their credentials and what they send."""
