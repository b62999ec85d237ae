"""Servers on this machine: installing, starting and ending them, nothing else."""
