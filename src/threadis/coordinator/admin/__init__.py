"""Commands about the server: INFO, CONFIG, SLOWLOG, DEBUG, SHUTDOWN and their like."""
