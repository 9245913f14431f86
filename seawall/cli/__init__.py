"""The command `seawall`: where everything is put together. It may import every room; nothing imports it."""

from seawall.cli.main import main

__all__ = ["main"]
