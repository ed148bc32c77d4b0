"""Pure: the state machine of a device's session, credit and fair shares. Kept free of imports."""
