"""What the end-to-end tests stand on: real registries and clients, the service as a process, upstreams with faults.

`servers` holds programs that run as processes of their own.
"""
