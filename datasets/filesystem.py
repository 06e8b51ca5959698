"""What a store asks of the folder that it is written in: room, permission, and locks that exclude every other writer.

Locks and renames across hosts are not to be relied upon on network file systems (NFS without its lock daemon, SMB, most of
FUSE), and a lock that does not exclude loses episodes without a sound. So those are refused for writing by name; local ones
are known by name; and any other is tried, and treated with care: see `journal.recover`.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from flywheel.core.errors import FlywheelError
from flywheel.core.lineage import content_hash

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NETWORK = frozenset({"9p", "afs", "ceph", "cifs", "coda", "davfs", "ncpfs", "nfs", "nfs4", "smb3", "smbfs", "virtiofs"})
_REMOTE_FUSE = ("sshfs", "s3fs", "rclone", "gcsfuse", "goofys", "davfs2", "blobfuse", "mount-s3", "curlftpfs", "glusterfs")
_WITHOUT_LINKS = frozenset({"exfat", "msdos", "vfat"})
_LOCAL = frozenset(
    {"apfs", "bcachefs", "btrfs", "ext2", "ext3", "ext4", "f2fs", "jfs", "overlay", "ramfs", "reiserfs", "tmpfs", "xfs", "zfs"}
)


@contextmanager
def refusing(path: Path) -> Iterator[None]:
    """Tell what the system refuses in writing `path` as a `FlywheelError` that names the cause and the mend."""
    try:
        yield
    except BlockingIOError:
        raise
    except OSError as error:
        raise FlywheelError(_sentence(path, error)) from None


def _sentence(path: Path, error: OSError) -> str:
    safe = "Every acknowledged episode is safe;"
    if error.errno in _FULL:
        return f"The disk is full: {path} cannot grow. {safe} free some space and run it again."
    if error.errno == errno.EROFS:
        return f"{path} lies on a read-only file system. {safe} remount it for writing, or log into a store elsewhere."
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"Permission denied: {path} may not be written by this user. {safe} ask the folder's owner, or log elsewhere."
    return f"Writing {path} failed ({error.strerror}). {safe} check the disk."


def check_writable(folder: Path) -> None:
    """Raise `FlywheelError` if a store in this folder could lose episodes: on a network, or where locks do not exclude."""
    kind = file_system(folder)
    mend = "write the store on a local disk and copy it there with 'flywheel store sync'."
    if kind in _NETWORK or (kind.startswith("fuse.") and kind[5:].startswith(_REMOTE_FUSE)):
        raise FlywheelError(f"{folder} lies on a network file system ({kind}), whose locks cannot be relied upon; {mend}")
    if kind in _WITHOUT_LINKS:
        raise FlywheelError(f"{folder} lies on a file system without hard links ({kind}); {mend}")
    if not _excludes(folder / ".lock"):
        raise FlywheelError(f"{folder} lies on a file system ({kind}) whose locks do not exclude a second writer; {mend}")


def locks_tell_the_dead(folder: Path) -> bool:
    """Whether a lock that is free proves its holder dead, on whichever host it ran: true of local file systems alone."""
    return file_system(folder) in _LOCAL


@cache
def boot_id() -> str:
    """What tells this run of this host from others, 8 hexadecimal digits; equal in all containers of a host."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text()[:8]
    except OSError:
        return content_hash(socket.gethostname().encode())[:8]


def file_system(folder: Path, mounts: Path = Path("/proc/self/mountinfo")) -> str:
    """The type of the file system that holds a folder, as the kernel names it; where it does not tell, as on macOS, "apfs"."""
    try:
        lines = mounts.read_text().splitlines()
    except OSError:
        return "apfs"
    real = folder.resolve()
    best, kind = -1, ""
    for line in lines:
        before, _, after = line.partition(" - ")
        point = Path(re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), before.split(" ")[4]))
        # Of mounts on one point, the last covers the others.
        if real.is_relative_to(point) and len(point.parts) >= best:
            best, kind = len(point.parts), after.split(" ")[0]
    return kind


def _excludes(path: Path) -> bool:
    """Whether a lock, once taken, is refused to a second descriptor."""
    with refusing(path):
        first = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(first, fcntl.LOCK_EX)
        second = os.open(path, os.O_RDWR)
        try:
            fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(second)
        return False
    except OSError:
        return False  # no locks at all
    finally:
        os.close(first)
