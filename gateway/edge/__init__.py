"""Sockets of devices: listener, knocks, gate, WebSocket connection, shell of the session."""
