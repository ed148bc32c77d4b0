"""The connection to NATS: one client of nats-py at a time, and the reconnects."""
