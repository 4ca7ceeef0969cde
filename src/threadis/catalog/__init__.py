"""The command table: what the server says of its commands, and what it does not."""
