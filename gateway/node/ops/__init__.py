"""What operators see of this node and change on it."""
