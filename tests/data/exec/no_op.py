"""A worker for `scripts/bench exec`: does nothing, so that only the way of an operation is measured."""

import ktrdr


@ktrdr.worker("no_op")
def no_op(ctx: ktrdr.Context, request: dict) -> None:
    """Does nothing."""


if __name__ == "__main__":
    ktrdr.main(no_op)
