"""Servers under test, as processes on loopback, and the disks and networks they run on."""
