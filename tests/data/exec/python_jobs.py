"""Two workers of one file, for the tests of `ktrdr run`."""

import asyncio

import ktrdr


@ktrdr.worker("python_deaf", interrupt=True)
def deaf(ctx: ktrdr.Context, request: dict) -> str:
    """Never looks whether it is cancelled."""
    ctx.progress(1, "deaf")
    while request["forever"]:
        try:
            sum(range(1000))
        except Exception:
            pass
    return "done"


@ktrdr.worker("python_async")
async def waits(ctx: ktrdr.Context, request: dict) -> str:
    """Waits."""
    await asyncio.sleep(request["seconds"])
    return "done"
