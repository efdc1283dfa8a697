"""A run of the benchmarks has a network of its own, where that is permitted."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.network import congestion_control

ROOT = Path(__file__).parents[2]
ALLOWED = Path("/proc/sys/net/ipv4/tcp_allowed_congestion_control")
PROGRAM = """
import socket, sys
from benchmarks.network import congestion_control, enter_own_network
try:
    enter_own_network()
except PermissionError:
    sys.exit(f"refused, {congestion_control()}")
with socket.create_server(("127.0.0.1", int(sys.argv[1]))) as server:
    with socket.create_connection(server.getsockname()) as client:
        used = client.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16)
print(congestion_control(), used.rstrip(bytes(1)).decode())
"""


def test_the_network_is_separate_and_its_congestion_control_does_not_pace() -> None:
    with socket.create_server(("127.0.0.1", 0)) as outside:
        argv = [sys.executable, "-c", PROGRAM, str(outside.getsockname()[1])]  # the same port is free there
        done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False, timeout=30)
    if done.stderr.startswith("refused"):
        assert done.stderr.strip() == f"refused, {congestion_control()}"
        pytest.skip("this user may not create a network namespace")
    expected = "cubic" if "cubic" in ALLOWED.read_text().split() else "reno"
    assert (done.stdout.split(), done.stderr) == ([expected, expected], "")
