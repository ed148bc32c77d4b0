"""The process of a worker: `python -m gateway.supervisor NUMBER FD`.

The number is for people who look at the processes of a machine. FD is a socket on which the
supervisor says everything else, so that no secret is on a command line.
"""

from importlib import import_module

from gateway.quick_imports import TERMINAL, without

if __name__ == "__main__":
    with without(TERMINAL):
        worker = import_module("gateway.supervisor.worker")
    worker.main()
