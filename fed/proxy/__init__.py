"""The two proxies of a party: the sender pushes its results to the others, the receiver takes theirs in.

Both are plain asyncio objects. `fed.runtime` decides where they live: as Ray actors, or on a thread.
"""
