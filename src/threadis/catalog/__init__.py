"""The command table: what the server reports of its commands, and what it does not."""
