"""Queues on Valkey or Redis Streams: how messages are kept, read, settled and rescued."""
