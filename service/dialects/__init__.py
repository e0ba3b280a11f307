"""What other rerankers' clients send and expect, translated to and from what this service does.

Knows the shapes of those APIs; does not know clocks, threads, sockets or the engine.
Invariant: a dialect has a parser, a writer and an error shape of its own, and none of them repeats input in an error.
"""
