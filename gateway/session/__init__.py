"""Pure: the device protocol. Frames, the session state machine, credit. Kept free of imports."""
