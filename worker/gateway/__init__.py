"""The gateway: HTTP in, Kafka out.

`app` composes it, `intake` tells what happens to a body, and each family of routes has a file.
"""
