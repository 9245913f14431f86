"""`python -m seawall` is the command `seawall`."""

from seawall.cli import main

main()
