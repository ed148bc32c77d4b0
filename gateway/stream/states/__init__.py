"""The desired states of devices: look-ups, what a node knows, and orders of operators."""
