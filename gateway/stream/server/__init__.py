"""The embedded nats-server: its process, its configuration, and the rights of its users."""
