"""Kafka itself: why a connection fails, how topics are set and whether that keeps the promise, where their logs begin and end."""
