"""What operators see and press, on a port of its own. The composition fills its protocols."""
