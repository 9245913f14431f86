"""Seawall beside its peers and beside a direct call, in one run: `make bench`, or `make bench-quick`."""
