"""Runs tests/applications/node (BullMQ, Bull, …) on the stock server and on thREaDIS.

python -m tools.node_applications          (needs node and npm)
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from threadis.supervisor import server
from tools.servers import free_port, running

FOLDER = Path(__file__).resolve().parents[1] / "tests" / "applications" / "node"
RULE = ["--placement", "bullmq,bull,bee-queue,rsmq"]
LIMIT = 240  # seconds


def main() -> None:
    """Install, run on each, say how long each took."""
    if not shutil.which("npm"):
        raise SystemExit("npm is not there: apt-get install nodejs npm")
    stock = server.find().path
    serve = [sys.executable, "-m", "threadis", "serve", "--server", stock, "--instances", "4"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for path in FOLDER.iterdir():
            shutil.copy(path, folder)
        subprocess.run(["npm", "install", "--silent", "--no-audit"], cwd=folder, check=True)
        sides = {"stock server": [stock], "thREaDIS": serve, "with a rule": [*serve, *RULE]}
        for title, command in sides.items():
            port, data = free_port(), folder / title
            data.mkdir()
            rest = ["--port", str(port), "--dir", str(data), "--save", ""]
            print(f"{title}:", flush=True)
            with running([*command, *rest], port):
                words = ["node", "applications.mjs", str(port)]
                subprocess.run(words, cwd=folder, check=True, timeout=LIMIT)


if __name__ == "__main__":
    main()
