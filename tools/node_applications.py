"""Runs tests/applications/node (BullMQ, Bull, …) on the stock server and on thREaDIS.

python -m tools.node_applications          (needs node and npm)
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from threadis.bench.processes import held_port
from threadis.supervisor import server
from tools.servers import running

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
            data = folder / title
            data.mkdir()
            rest = ["--dir", str(data), "--save", "", "--port"]
            print(f"{title}:", flush=True)
            with held_port() as port, running([*command, *rest, str(port)], port):
                words = ["node", "applications.mjs", str(port)]
                subprocess.run(words, cwd=folder, check=True, timeout=LIMIT)


if __name__ == "__main__":
    main()
