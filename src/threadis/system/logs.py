"""The log format: one line per message on standard error, with the time in UTC."""

import logging
import time

FORMAT = "%(asctime)s.%(msecs)03dZ %(levelname)s %(message)s"
TIME = "%Y-%m-%dT%H:%M:%S"


def set_up() -> None:
    """Log this process's messages, from INFO on."""
    formatter = logging.Formatter(FORMAT, TIME)
    formatter.converter = time.gmtime
    handler = logging.StreamHandler()
    handler.setFormatter(formatter)
    logging.basicConfig(handlers=[handler], level=logging.INFO)
