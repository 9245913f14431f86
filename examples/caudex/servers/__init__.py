"""The four services behind the backend, each a program of its own that knows nothing of Seawall."""
