"""Redis and Valkey: a target in one server, or in a cluster of them.

target.py   what stands where, in the format of the SDKs
servers.py  the server that a URL leads to, or the primaries of its cluster
node.py     one of them: many commands in one exchange
"""
