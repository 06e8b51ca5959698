"""Hashes and versions: which policy made which episode from which data with which code."""

from __future__ import annotations

import hashlib
import json
import platform
import subprocess
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from flywheel import __version__

# Long enough that two contents never meet by chance (2^64 of them), short enough to read aloud.
_HASH_DIGITS = 32


def content_hash(data: bytes) -> str:
    """The first 128 bits of SHA-256, in hexadecimal."""
    return hashlib.sha256(data).hexdigest()[:_HASH_DIGITS]


def json_hash(value: Any) -> str:
    """The hash of a JSON value, independent of key order."""
    return content_hash(json.dumps(value, sort_keys=True, separators=(",", ":")).encode())


@cache
def code_version() -> str:
    """This package's version, with the git commit (``+dirty`` if changed) where it runs from a checkout."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return __version__
    try:
        commit = _git(root, "rev-parse", "--short=12", "HEAD")
        dirty = "+dirty" if _git(root, "status", "--porcelain", "--untracked-files=no") else ""
    except (OSError, subprocess.SubprocessError):
        return __version__
    return f"{__version__}+{commit}{dirty}"


def package_versions(*packages: str) -> dict[str, str]:
    """The installed versions of some packages and of Python; a package that is not installed is left out."""
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def _git(root: Path, *arguments: str) -> str:
    result = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True, timeout=10)
    return result.stdout.strip()
