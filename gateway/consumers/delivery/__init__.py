"""How a rule's events reach its target: subjects of NATS, receivers of HTTP, commands."""
