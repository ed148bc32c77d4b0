"""The queue of commands: what waits for a device, and the stored facts of what became of it."""
