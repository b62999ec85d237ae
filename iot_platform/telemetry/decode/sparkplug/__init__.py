"""Sparkplug B: payload and topic to points, and the births that name what later messages leave out."""
