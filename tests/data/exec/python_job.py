"""A worker with the package ktrdr, for the tests: does what the parameter `do` says."""

import logging
import os
import time

import ktrdr


@ktrdr.worker("python_job", version="3")
def python_job(ctx: ktrdr.Context, request: dict):
    """Does what it is told."""
    do = request["do"]
    if do == "loop":
        # As training code often does: whatever fails is tried again.
        while True:
            try:
                for _ in ctx.track(range(1000), step="{done} of {total}"):
                    time.sleep(0.01)
            except Exception:
                pass
    if do == "fork":
        if os.fork() == 0:
            try:
                ctx.metric("wrong", 1)
                time.sleep(0.5)
            finally:
                return "from the fork"
        return "from the parent"
    if do == "fail":
        raise ValueError("no such column: age")
    if do == "steps":
        first = ctx.last_checkpoint(0)
        for step in range(first, request["steps"]):
            ctx.progress(100 * step / request["steps"], counted=step)
            ctx.metric("step", step, step=step)
            ctx.checkpoint(lambda: step)
            ctx.check_cancelled()
            time.sleep(0.05)
        ctx.ensure_owner()
        return first
    if do == "print":
        print("printed by the job")
        return {"nan": float("nan")}
    if do == "log":
        logging.getLogger("job").warning("rows without a price: %d", 3)
        logging.info("plain")
        logging.debug("below the level")
        ctx.log("error", "by the context", row=7)
        try:
            return 1 / 0
        except ZeroDivisionError:
            logging.exception("it failed")
        print("printed")
        return None
    raise ktrdr.PermanentError(f"cannot do {do}", code="unknown_work")


if __name__ == "__main__":
    ktrdr.main(python_job)
