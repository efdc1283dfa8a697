"""A network of its own for a run: loopback, with a congestion control that does not pace.

Some machines use BBR for all connections. BBR paces what a connection sends by timers, on loopback too. Then the timers
decide the throughput of all servers: on the machine of the report, 1.5 to 5 GiB/s with BBR, 12 GiB/s with CUBIC.
"""

import ctypes
import fcntl
import os
import socket
import struct
from contextlib import suppress
from pathlib import Path

CONGESTION_CONTROLS = ("cubic", "reno")
"""The default of Linux, and what every kernel has. Other namespaces than the first one may use only those that
`net.ipv4.tcp_allowed_congestion_control` lists, and on a machine with BBR that may be Reno and BBR.
"""
_SETTING = Path("/proc/sys/net/ipv4/tcp_congestion_control")
_CLONE_NEWNET = 0x40000000  # unshare(2)
_SIOCSIFFLAGS = 0x8914  # netdevice(7)
_IFF_UP = 1
_IFREQ = struct.Struct("16sh22x")


def enter_own_network() -> None:
    """Move this process, and the processes that it will start, to a new network namespace. Call it before a second
    thread runs: threads have namespaces of their own. Raises OSError if the process may not do this.
    """
    library = ctypes.CDLL(None, use_errno=True)
    if library.unshare(_CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, _IFREQ.pack(b"lo", _IFF_UP))
    for name in CONGESTION_CONTROLS:
        with suppress(OSError):
            _SETTING.write_text(name)
            break


def congestion_control() -> str:
    """The name of the congestion control of this process's connections, or `unknown`."""
    try:
        return _SETTING.read_text().strip()
    except OSError:
        return "unknown"
