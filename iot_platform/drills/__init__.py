"""Failure drills: real faults on real servers, and the proof that nothing was lost or doubled."""
