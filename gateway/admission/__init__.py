"""Pure: who may connect. Credentials today; nothing here does I/O."""
