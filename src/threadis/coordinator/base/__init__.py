"""Independent of instances and clients: the command table, rights, databases, numbers."""
