"""I/O: everything between the gateway and NATS JetStream."""
