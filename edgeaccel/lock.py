"""One process at a time makes a file; others wait, and then find it."""

import fcntl
import os
from contextlib import contextmanager

__all__ = ["locked"]


@contextmanager
def locked(path):
    """Hold the lock of `path`, a file that is to be made unless it is there by then.

    The lock is `path` with `.lock` behind it, there while somebody holds it. It is the system's (`flock`): it ends with
    the process, however that ends, and programs that the process has started do not inherit it.
    """
    lock = path.with_name(path.name + ".lock")
    while True:
        handle = os.open(lock, os.O_CREAT | os.O_RDWR, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            if _is_same(handle, lock):  # and not one that its holder removed while this one waited
                try:
                    yield
                finally:
                    lock.unlink(missing_ok=True)
                return
        finally:
            os.close(handle)


def _is_same(handle, path):
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path))
    except FileNotFoundError:
        return False
