"""The example agents as processes."""

import signal
import stat
import subprocess
from pathlib import Path

from market import PASSWORD, ROOT, environment

AGENTS = ROOT / "examples/agents"
COMMANDS = {
    "python": ([".venv/bin/python", "agent.py"], AGENTS / "python"),
    "typescript": (["node", "dist/agent.js"], AGENTS / "typescript"),
    "rust": ([str(ROOT / "target/debug/example-agent"), "--beat", "1"], AGENTS / "rust"),
}


class Example:
    """One of them, with a capability that nobody else has."""

    def __init__(self, language, server, *arguments):
        self.language, self.capability = language, f"text.summary.{language}"
        command, folder = COMMANDS[language]
        self.state, self.log = server.folder / f"{language}.json", server.folder / f"{language}.log"
        self.command = [*command, "--server", server.url, "--email", f"{language}@example.com", "--capability", self.capability,
                        "--state", str(self.state), *arguments]
        self.folder = folder

    def start(self):
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(self.command, cwd=self.folder, env=environment(ZEROSTATE_PASSWORD=PASSWORD),
                                            stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def said(self):
        return Path(self.log).read_text(errors="replace")

    def check_alive(self):
        assert self.process.poll() is None, f"{self.language} ended with {self.process.poll()}:\n{self.said()}"

    def stop(self):
        """Told to end, it ends by itself and well."""
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(30)
        assert code == 0, f"{self.language} ended with {code}:\n{self.said()}"
        mode = stat.S_IMODE(self.state.stat().st_mode)
        assert mode == 0o600, f"the key of {self.language} has mode {mode:o}"
        return self.said().splitlines()[-1]
