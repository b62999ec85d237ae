"""The replay: stored or quarantined messages through the decoder again."""
