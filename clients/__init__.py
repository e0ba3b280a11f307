"""The clients of other rerankers, one program a family: each shows how a client is pointed at this service.

Knows clients; does not know the service. `make clients` asks them all (run.py) and keeps docs/clients.md (table.py).
Invariant: a client is set up as its own documentation says, and asked for one list of products.
"""
