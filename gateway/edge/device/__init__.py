"""A device on a connection: the shell of `session.machine` and what it tells its device."""
