"""Conformance tests: exchanges of the wire contract, played against any client.

__main__   the command: plays all exchanges against one client, and prints a line for each
exchanges  exchanges.json: the list, for every language
pattern    what a frame must look like
subject    the client under test: a process that receives orders
peer       a gateway that follows a script
play       one exchange, step by step
reference  the adapter of the reference client
"""
