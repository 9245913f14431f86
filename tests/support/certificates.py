"""Certificates made for one test run: an authority of one's own, and what it vouches for."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

__all__ = ["Authority"]


class Authority:
    """A certificate authority in a folder. Needs the program `openssl`; see `available`."""

    available = shutil.which("openssl") is not None

    def __init__(self, folder: Path, name: str = "authority") -> None:
        self.folder = folder
        self.certificate = folder / f"{name}.pem"
        self._key = folder / f"{name}.key"
        _openssl(
            *("req", "-x509", "-days", "2", "-subj", f"/CN={name}", "-addext", "keyUsage=critical,keyCertSign"),
            *_new_key(self._key),
            *("-out", self.certificate),
        )

    def issue(self, name: str, *, hosts: str = "DNS:localhost") -> tuple[Path, Path]:
        """A certificate and its key, for these hosts or for a client."""
        certificate, key, request = (self.folder / f"{name}.{end}" for end in ("pem", "key", "csr"))
        extensions = self.folder / f"{name}.ext"
        extensions.write_text(f"subjectAltName={hosts}\n")
        _openssl("req", "-subj", f"/CN={name}", *_new_key(key), "-out", request)
        signer = ("-CA", self.certificate, "-CAkey", self._key, "-CAcreateserial", "-days", "2")
        _openssl("x509", "-req", "-in", request, *signer, "-extfile", extensions, "-out", certificate)
        return certificate, key

    def lock(self, key: Path, password: str) -> Path:
        """The key behind a password."""
        locked = key.with_suffix(".locked")
        _openssl("ec", "-in", key, "-aes128", "-passout", f"pass:{password}", "-out", locked)
        return locked


def _new_key(path: Path) -> tuple[str | Path, ...]:
    return "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", path


def _openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)
