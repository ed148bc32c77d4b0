"""Accepts connections: the listening sockets, TLS, and a budget for each turn of the loop."""
