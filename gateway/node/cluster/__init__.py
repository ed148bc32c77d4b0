"""This node and the other nodes: what a fleet over Redis fills, and its null form."""
