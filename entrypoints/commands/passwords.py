"""Passwords, asked of whoever sits there."""

import getpass
import sys


def ask_password(user: str) -> str:
    """From the terminal, without showing it; else the first line of standard input. Raises UnicodeDecodeError."""
    if sys.stdin.isatty():
        return getpass.getpass(f"Password of {user}: ")
    return sys.stdin.buffer.readline().decode("utf-8").rstrip("\r\n")
