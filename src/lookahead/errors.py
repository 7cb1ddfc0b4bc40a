"""The one error that people see: what is wrong, and the mend."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager


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
        if error.filename is None or error.strerror is None:
            raise
        name = f"{error.filename!s:.200}"
        sys.exit(f"error: {name} cannot be used ({error.strerror}): check the path and its permissions")
    except (MemoryError, RuntimeError) as error:  # torch's are RuntimeErrors
        reason = (str(error) or "MemoryError").splitlines()[0]
        if not isinstance(error, MemoryError) and "allocate" not in reason and "out of memory" not in reason:
            raise
        sys.exit(f"error: too little memory ({reason:.150}): lower `batch_size`, or end other programs")
