"""What is read from files and read again at SIGHUP: certificates, keys, schemas."""
