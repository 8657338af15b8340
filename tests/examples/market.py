"""A server of its own, and a client of its API without any library, for tests from outside."""

import json
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
import uuid
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = os.environ.get("ZEROSTATE_TEST_PROGRAM", str(ROOT / "target/debug/zerostate"))
PASSWORD = "correct horse battery staple"
ADMIN = "admin@example.com"
HTTP = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def environment(**more):
    """The environment without settings of ours, with these."""
    names = ("ZEROSTATE_", "DATABASE_URL", "HOST", "PORT", "RUST_LOG")
    return {name: value for name, value in os.environ.items() if not name.startswith(names)} | more


class Server:
    """The real program over a folder; each start listens on the same port."""

    def __init__(self, folder, settings=()):
        self.folder, self.settings = Path(folder), list(settings)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.process = None

    def start(self, patience=60):
        command = [PROGRAM, "serve", "--host", "127.0.0.1", "--port", str(self.port), "--data", str(self.folder / "data"), *self.settings]
        with open(self.folder / "server.log", "ab") as log:
            self.process = subprocess.Popen(command, env=environment(ZEROSTATE_ADMIN_EMAIL=ADMIN, ZEROSTATE_ADMIN_PASSWORD=PASSWORD,
                                                                     RUST_LOG="warn"), stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        until = time.monotonic() + patience
        while True:
            try:
                with HTTP.open(self.url + "/ready", timeout=patience) as answer:
                    if answer.status == 200:
                        return
            except (urllib.error.URLError, OSError):
                pass
            if self.process.poll() is not None or time.monotonic() > until:
                raise AssertionError(f"the server does not start:\n{self.last_words()}")
            time.sleep(0.05)

    def kill(self):
        self.process.kill()
        self.process.wait()

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(60)
        assert code == 0, f"the server ended with {code}:\n{self.last_words()}"

    def peak_memory(self):
        """The most memory that it had resident so far, in MiB."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
        raise AssertionError("the system does not tell the memory of a process")

    def audit(self):
        command = [PROGRAM, "audit", "--data", str(self.folder / "data")]
        done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"the audit:\n{done.stdout}{done.stderr}"

    def last_words(self):
        return "\n".join((self.folder / "server.log").read_text(errors="replace").splitlines()[-30:])


class Client:
    """Somebody at a server; a request that is not answered is sent again, so mutations have keys."""

    def __init__(self, server, token=None):
        self.server, self.token = server, token

    def send(self, path, body, kind, method="POST"):
        headers = {"content-type": kind} | ({"authorization": f"Bearer {self.token}"} if self.token else {})
        for _ in range(100):
            try:
                with HTTP.open(urllib.request.Request(self.server.url + path, body, headers, method=method), timeout=30) as answer:
                    return json.load(answer)
            except urllib.error.HTTPError as error:
                if error.code not in (429, 503):
                    raise AssertionError(f"{path}: {error.code} {error.read().decode()}") from None
            except (urllib.error.URLError, OSError):
                pass
            time.sleep(0.2)
        raise AssertionError(f"the server does not answer:\n{self.server.last_words()}")

    def ask(self, query, **variables):
        answer = self.send("/graphql", json.dumps({"query": query, "variables": variables}).encode(), "application/json")
        assert "errors" not in answer, f"{query}: {answer['errors']}"
        return answer["data"]

    def do(self, field, want, given):
        """A mutation that has to be done: its field, what to ask of its payload, and its input."""
        kind = field[0].upper() + field[1:] + "Input"
        query = f"mutation($input: {kind}!) {{ {field}(input: $input) {{ {want} userErrors {{ message }} }} }}"
        payload = self.ask(query, input=given)[field]
        assert not payload["userErrors"], f"{field}: {payload['userErrors']}"
        return payload

    def login(self, email):
        token = self.do("login", "tokens { accessToken }", {"email": email, "password": PASSWORD})["tokens"]["accessToken"]
        return Client(self.server, token)

    def user(self, name):
        new = {"email": f"{name}@example.com", "displayName": name, "password": PASSWORD}
        tokens = self.do("registerUser", "tokens { accessToken user { id } }", new)["tokens"]
        person = Client(self.server, tokens["accessToken"])
        person.id = tokens["user"]["id"]
        return person

    def credit(self, person, amount):
        key = str(uuid.uuid4())
        self.do("issueCredits", "transfer { id }", {"userId": person.id, "amount": amount, "reference": key, "idempotencyKey": key})

    def execute(self, **task):
        return self.do("executeTask", "task { id }", {"idempotencyKey": str(uuid.uuid4())} | task)["task"]["id"]

    def tasks(self, want="id status paid agent { id name } failureCode failureMessage"):
        """All tasks that this person pays for."""
        found, after = [], None
        while True:
            page = self.ask(f"query($after: String) {{ tasks(filter: {{side: REQUESTER}}, first: 100, after: $after) "
                            f"{{ nodes {{ {want} }} pageInfo {{ hasNextPage endCursor }} }} }}", after=after)["tasks"]
            found += page["nodes"]
            if not page["pageInfo"]["hasNextPage"]:
                return found
            after = page["pageInfo"]["endCursor"]
