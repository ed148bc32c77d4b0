"""Conformance of clients: exchanges of the wire contract, played against any client.

__main__   the command: all exchanges against one client, a line each
exchanges  exchanges.json: the list, for every language
pattern    what a frame must look like
subject    the client under test: a process that is told what to do
peer       a gateway that does what a script says
play       one exchange, step by step
reference  how the reference client is put to the test
"""
