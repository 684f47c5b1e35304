"""How an operation ends that does not complete."""

from __future__ import annotations

__all__ = ["Cancelled", "OperationError", "PermanentError", "RetryAfter", "DeclarationError"]


class Cancelled(BaseException):
    """The operation is to stop. Let it pass: it is no `Exception`, so that `except Exception` does not catch it."""


class OperationError(Exception):
    """The operation failed. Another attempt may succeed, and is made when failures are retried.

    `code` is a stable word for programs.
    """

    permanent = False

    def __init__(self, message: str, *, code: str = "engine_error") -> None:
        super().__init__(message)
        self.code = code


class PermanentError(OperationError):
    """The operation failed, and every other attempt would fail, too."""

    permanent = True

    def __init__(self, message: str, *, code: str = "invalid_request") -> None:
        super().__init__(message, code=code)


class RetryAfter(OperationError):
    """The operation failed. Another attempt is made after `seconds`, while attempts are left."""

    def __init__(self, seconds: float, message: str = "", *, code: str = "engine_error") -> None:
        super().__init__(message or f"to be tried again after {seconds} s", code=code)
        self.seconds = seconds


class DeclarationError(TypeError):
    """A worker is declared in a way that cannot work."""
