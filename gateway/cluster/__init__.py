"""I/O: several nodes as one fleet, over Redis. Nothing here is needed by a node of its own."""
