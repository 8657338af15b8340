"""The example agents as processes."""

import signal
import stat
import subprocess
from pathlib import Path

from market import PASSWORD, ROOT, environment

AGENTS = ROOT / "examples/agents"
COMMANDS = {
    "python": [str(AGENTS / "python/.venv/bin/python"), str(AGENTS / "python/agent.py")],
    "typescript": ["node", str(AGENTS / "typescript/dist/agent.js")],
    "rust": [str(ROOT / "target/debug/example-agent")],
}


class Example:
    """One of them, with a capability that nobody else has."""

    def __init__(self, language, server, seconds=0):
        self.language, self.capability = language, f"text.summary.{language}"
        self.folder, self.state, self.log = server.folder, server.folder / f"{language}.json", server.folder / f"{language}.log"
        self.environment = environment(ZEROSTATE_SERVER=server.url, ZEROSTATE_EMAIL=f"{language}@example.com", ZEROSTATE_PASSWORD=PASSWORD,
                                       AGENT_NAME=language, AGENT_CAPABILITY=self.capability, AGENT_SECONDS=str(seconds))

    def start(self):
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(COMMANDS[self.language], cwd=self.folder, env=self.environment,
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
