"""This node and JetStream: the server, the connection, states and commands."""
