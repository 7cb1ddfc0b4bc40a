"""The one error that people see: what is wrong, and the mend."""

import errno
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class InputError(Exception):
    """Bad input at the border: the message names the offending value and what would be right."""


@contextmanager
def one_message() -> Iterator[None]:
    """End the process with one line and exit code 1 for what is not a fault of this program; SIGTERM is as Ctrl-C."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    except InputError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("interrupted: the same command continues")
    except OSError as error:
        full = error.errno in FULL
        if error.strerror is None or (error.filename is None and not full):
            raise
        mend = "free some disk space" if full else "check the path and its permissions"
        sys.exit(f"error: {error.filename or 'a file'!s:.200} cannot be used ({error.strerror}): {mend}")
    except (MemoryError, RuntimeError) as error:  # torch's are RuntimeErrors
        reason = (str(error) or "MemoryError").splitlines()[0]
        if not isinstance(error, MemoryError) and "allocate" not in reason and "out of memory" not in reason:
            raise
        sys.exit(f"error: too little memory ({reason:.150}): lower `batch_size`, or end other programs")
