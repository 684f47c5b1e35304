"""The client against a backend with TLS and tokens, for the tests: AUTHORITY is the file of its authority, READER a token that may read."""

import os
import time

import ktrdr

AUTHORITY, READER = os.environ["AUTHORITY"], os.environ["READER"]


def code(client: ktrdr.Client) -> "str | None":
    try:
        client.start("dummy", {"steps": 0})
    except ktrdr.ApiError as error:
        return error.code
    return None


begun = time.monotonic()
try:
    ktrdr.Client().stats()
    raise AssertionError("nobody trusts this authority")
except ktrdr.Unreachable as error:
    assert error.is_lasting, error
assert time.monotonic() - begun < 10, "it is not repeated"

assert code(ktrdr.Client(verify=AUTHORITY)) == "unknown_domain"
reader = ktrdr.Client(token=READER, verify=AUTHORITY)
assert reader.workers() == []
assert code(reader) == "forbidden"
assert code(ktrdr.Client(token="wrong", verify=AUTHORITY)) == "unauthorized"
assert READER not in repr(reader) + repr(vars(reader))
print("all of it works")
