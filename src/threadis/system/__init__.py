"""This machine: its CPUs, processes, files, memory."""
