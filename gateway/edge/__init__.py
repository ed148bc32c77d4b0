"""I/O: sockets of devices and of operators."""
