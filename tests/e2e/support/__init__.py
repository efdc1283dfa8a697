"""Support for the end-to-end tests: real registries and clients, the service as a process, upstreams with faults.

`servers` contains programs that run as separate processes.
"""
