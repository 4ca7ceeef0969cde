"""What knows neither instances nor clients: the command table, rights, databases, numbers."""
