"""What several tests need: real processes, a gateway, a device that speaks raw frames."""
