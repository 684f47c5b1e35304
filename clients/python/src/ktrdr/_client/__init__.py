"""The client: `calls.py` has the rules, `sync.py` and `asynchronous.py` speak HTTP with httpx."""
