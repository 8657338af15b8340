"""Executes what README.md and docs/ show. See `run.sh`, and "How the documents are tested" in CONTRIBUTING.md for the markers."""

import concurrent.futures
import http.client
import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import tomllib
import urllib.error
import urllib.request
from pathlib import Path

import graphql
import yaml

import answer
import links
import reference
from page import DATA, PICTURES, PROGRAMS, ROOT, SHELL, read

SHOWN = "127.0.0.1:8080"
SHOWN_DATABASE = "postgres://zerostate:SECRET@127.0.0.1/zerostate"
PATIENCE = 90
# A block that takes longer is told of, because all of them together have to be short.
SLOW = 10
AT_ONCE = 4
HERE = Path(__file__).resolve().parent
SCHEMA = graphql.build_schema((ROOT / "schema.graphql").read_text())
# What a block may need beside the usual tools: how to get it, and what to say where that does not work.
NEEDS = {
    "rust-wasm": ("test -d $(rustc --print sysroot)/lib/rustlib/wasm32-wasip1 || timeout 60 rustup target add wasm32-wasip1",
                  "the target wasm32-wasip1 of rustup"),
    "clang-wasm": ("test -e /usr/lib/wasm32-wasi/libc.a && clang --version && command -v wasm-ld",
                   "clang, lld and wasi-libc with libclang-rt-dev-wasm32"),
    "python-agent": ("cd examples/agents/python && cmp -s requirements.txt .venv/installed || { python3 -m venv --clear .venv && .venv/bin/python -m pip "
                     "install --quiet --disable-pip-version-check --require-hashes -r requirements.txt && cp requirements.txt .venv/installed; }",
                     "the packages of examples/agents/python/requirements.txt"),
    "node-clients": ("cd tests/conformance && cmp -s package-lock.json node_modules/.installed || { npm ci --ignore-scripts --no-audit --no-fund "
                     "--loglevel=error && cp package-lock.json node_modules/.installed; }", "the packages of tests/conformance/package-lock.json"),
}


class Wrong(Exception):
    """What is not as the page says."""


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


# Pages are read at once, and two that need the same must not install it at once.
INSTALLING = threading.Lock()


def has(need, known={}):
    with INSTALLING:
        if need not in known:
            known[need] = subprocess.run(["bash", "-c", NEEDS[need][0]], cwd=ROOT, capture_output=True, check=False).returncode == 0
        return known[need]


class Reader:
    """Somebody who does what a page says, from its top to its end, in a folder of their own."""

    def __init__(self, page, folder):
        self.page, self.folder = page, folder
        self.port, self.base = free_port(), None
        self.server, self.last, self.query = None, "", None
        # An instant that is never over stands for one that is a month ahead, because some have to be within a year.
        self.known = {"2099-01-01T00:00:00Z": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 30 * 86400))}
        self.done, self.left, self.repeat, self.silent = 0, [], None, False
        folder.mkdir()
        for entry in ROOT.iterdir():
            if entry.name not in (".git", "data", "node_modules", "examples"):
                (folder / entry.name).symlink_to(entry)
        # What an example keeps it keeps here.
        (folder / "examples/agents").mkdir(parents=True)
        for example in (ROOT / "examples/agents").iterdir():
            if not example.is_dir():
                (folder / "examples/agents" / example.name).symlink_to(example)
            else:
                (folder / "examples/agents" / example.name).mkdir()
                for entry in example.iterdir():
                    copy = folder / "examples/agents" / example.name / entry.name
                    if entry.name == ".venv" and any(block.options.get("needs") == "python-agent" for block in page.blocks):
                        shutil.copytree(entry, copy, symlinks=True)
                    else:
                        copy.symlink_to(entry)
        (folder / "node_modules").symlink_to(ROOT / "tests/conformance/node_modules")
        names = ("ZEROSTATE_", "DATABASE_URL", "HOST", "PORT", "RUST_LOG", "TEST_DATABASE_URL")
        environment = {name: text for name, text in os.environ.items() if not name.startswith(names)}
        path = f"{ROOT / 'target/debug'}:{HERE / '.venv/bin'}:{environment['PATH']}"
        self.environment = environment | {"PATH": path, "HOST": "127.0.0.1", "PORT": str(self.port), "NO_PROXY": "127.0.0.1",
                                          "ZEROSTATE_SERVER": f"http://127.0.0.1:{self.port}", "ZEROSTATE_DEMO_SPEED": "2"}
        self.groups = []

    def real(self, text):
        text = answer.filled(text.replace(SHOWN, f"127.0.0.1:{self.port}"), self.known)
        return text.replace(SHOWN_DATABASE, os.environ.get("TEST_DATABASE_URL", "postgres://nowhere"))

    def shown(self, text):
        text = re.sub(r"\x1b\[[0-9;]*m", "", text).replace(f"127.0.0.1:{self.port}", SHOWN)
        return text.replace(os.environ.get("TEST_DATABASE_URL", "no database"), SHOWN_DATABASE)

    def shell(self, script, terminal="", folder=None, to=None):
        """Begins a script in the shell of a terminal, whose variables and folder are those that its last script left."""
        state = self.folder / f".terminal-{terminal}"
        begin = f"[ -e {state} ] && . {state}\nset -ao pipefail\ntrap 'declare -px | grep -v BASHOPTS >{state}; echo \"cd $PWD\" >>{state}' EXIT\nset -e\n"
        process = subprocess.Popen(["bash", "-c", begin + script], cwd=folder or self.folder, env=self.environment, stdin=subprocess.DEVNULL,
                                   stdout=to, stderr=subprocess.STDOUT, start_new_session=True)
        self.groups.append(process)
        return process

    def run(self, script, terminal="", seconds=PATIENCE):
        """What a script says, and how it ended."""
        said = self.folder / ".said"
        # A file of its own: a script whose time is up may go on, and what it says then is no part of this.
        said.unlink(missing_ok=True)
        with open(said, "wb") as to:
            process = self.shell(script, terminal, to=to)
            try:
                code = process.wait(seconds)
            except subprocess.TimeoutExpired:
                code = None
        self.last = self.shown(said.read_text(errors="replace"))
        return code

    def serve(self, script):
        self.stop()
        said = self.folder / ".server"
        folder = ROOT if script.startswith("make") else None
        with open(said, "wb") as to:
            self.server = self.shell(script, "server", folder, to)
        until = time.monotonic() + 300
        insecure = ssl._create_unverified_context()
        while True:
            text = said.read_text(errors="replace")
            for scheme in ("http", "https"):
                try:
                    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=insecure))
                    with opener.open(f"{scheme}://127.0.0.1:{self.port}/ready", timeout=2) as ready:
                        # A demonstration greets once its people are there.
                        if ready.status == 200 and ("demo" not in script and "make" not in script or "Ctrl-C" in text):
                            self.last, self.base = self.shown(said.read_text(errors="replace")), f"{scheme}://127.0.0.1:{self.port}"
                            token = re.search(r"export TOKEN=(\S+)", text)
                            if token:
                                self.environment["TOKEN"] = token.group(1)
                            return
                except (http.client.HTTPException, OSError, ValueError):
                    pass
            if self.server.poll() is not None or time.monotonic() > until:
                raise Wrong(f"the server does not start:\n{text}")
            time.sleep(0.1)

    def stop(self):
        if self.server and self.server.poll() is None:
            os.killpg(self.server.pid, signal.SIGINT)
            try:
                self.server.wait(30)
            except subprocess.TimeoutExpired:
                pass
        self.server = None

    def end(self):
        self.stop()
        for process in self.groups:
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass

    def market(self):
        """The market of a page that begins with one: `make run` in another terminal."""
        self.serve("zerostate demo --quiet")
        for role in ("client", "administrator"):
            self.environment[role.upper() + "_PASSWORD"] = re.search(rf"\S+ / (\S+) \({role}\)", self.last).group(1)

    def ask(self, query, variables):
        body = json.dumps({"query": self.real(query), "variables": variables}).encode()
        headers = {"content-type": "application/json"}
        token = self.token()
        if token:
            headers["authorization"] = f"Bearer {token}"
        try:
            with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(
                    urllib.request.Request(self.base + "/graphql", body, headers), timeout=60) as said:
                self.last = self.shown(said.read().decode())
        except urllib.error.HTTPError as error:
            raise Wrong(f"{error.code} {error.read().decode()}") from None
        found = json.loads(self.last)
        if "errors" in found:
            raise Wrong(f"the request fails: {self.last}")
        refused = [payload for payload in found["data"].values() if isinstance(payload, dict) and payload.get("userErrors")]
        if refused:
            raise Wrong(f"the request is refused: {self.last}")

    def token(self):
        self.run('echo "${TOKEN:-}"')
        return self.last.strip()

    def do(self, block):
        """Does what one block says."""
        language, verb = block.language, block.verb
        if not block.skipped and self.page.name.startswith("docs/runbooks/") and language in SHELL | {"promql", "sql"} and not verb:
            block.skipped = "a runbook is for a service in trouble"
        if block.skipped:
            if language in SHELL:
                self.known_commands(block.text)
            self.left.append(f"{self.page.name}:{block.line}: {block.skipped}")
            if language == "graphql":
                raise Wrong("a GraphQL document is held against the schema and cannot be skipped")
            return
        need = block.options.get("needs")
        # What was not asked has no answer.
        self.silent = bool(need and not has(need)) or (self.silent and verb == "answer")
        if self.silent and verb == "answer":
            return
        if self.silent:
            self.left.append(f"{self.page.name}:{block.line}: NOT HERE: needs {NEEDS[need][1]}")
            return
        if language == "indented":
            raise Wrong("blocks are fenced, so that they say what they are")
        if "file" in block.options:
            (self.folder / block.options["file"]).write_text(self.real(block.text))
        if language == "graphql":
            self.valid(block.text)
            self.query = block.text
            if verb == "run":
                self.ask(block.text, {})
        elif verb == "answer":
            self.compare(block)
        elif verb == "variables":
            self.ask(self.query, json.loads(self.real(block.text)))
        elif language == "json":
            json.loads(block.text)
        elif language == "toml":
            tomllib.loads(block.text)
        elif language == "yaml":
            list(yaml.safe_load_all(block.text))
        elif language in SHELL and verb == "server":
            self.serve(self.real(block.text))
        elif language in SHELL and verb == "run":
            self.command(block)
        elif language == "js" and verb == "run":
            self.program(block, "page.mjs", "node")
        elif language == "python" and verb == "run":
            self.program(block, "page.py", "python")
        elif not (language in PICTURES and not block.words or language in PROGRAMS | PICTURES and "file" in block.options):
            raise Wrong(f"the block has no marker: ```{language}")
        self.done += 1

    def known_commands(self, text):
        """What is not executed names commands and flags that there are, at least."""
        commands, common = reference.commands()
        for line in text.replace("\\\n", " ").splitlines():
            words = line.split("#")[0].split()
            if not words or words[0] != "zerostate":
                continue
            path = next((" ".join(words[1:end]) for end in (3, 2) if " ".join(words[1:end]) in commands), None)
            flags = {word.split("=")[0] for word in words if word.startswith("--")}
            if path is None or flags - commands[path] - common:
                raise Wrong(f"there is no such command: {line}")

    def valid(self, text):
        try:
            # Several operations that are shown together are sent one by one.
            for part in re.split(r"(?m)^(?=query|mutation|subscription)", text):
                if part.strip() and not part.strip().startswith("#"):
                    wrong = graphql.validate(SCHEMA, graphql.parse(part))
                    if wrong:
                        raise Wrong("\n".join(map(str, wrong)))
        except graphql.GraphQLError as error:
            raise Wrong(str(error)) from None

    def command(self, block):
        script = self.real(block.text)
        if re.search(r"[\w…]…|…\w", script):
            raise Wrong(f"a placeholder that no answer gave a value to: {script}")
        seconds = int(block.options.get("for", PATIENCE))
        code = self.run(script, block.options.get("terminal", ""), seconds)
        self.repeat = block if "again" in block.words else None
        if code is None and "for" in block.options:
            return
        if code != int(block.options.get("exit", 0)):
            raise Wrong(f"ends with {code}:\n{script}\n{self.last}")

    def program(self, block, name, interpreter):
        (self.folder / name).write_text(self.real(block.text))
        code = self.run(f"exec {interpreter} {name}", "", int(block.options.get("for", PATIENCE)))
        if code not in ((0, None) if "for" in block.options else (0,)) or not self.last.strip():
            raise Wrong(f"the program ends with {code} and says\n{self.last}")

    def compare(self, block):
        until = time.monotonic() + PATIENCE
        while (wrong := self.differs(block)) and self.repeat and time.monotonic() < until:
            time.sleep(0.5)
            self.command(self.repeat)
        if wrong:
            raise Wrong(wrong)

    def differs(self, block):
        if block.language == "json":
            return answer.document(block.text, self.last, self.known)
        return answer.text(block.text, self.last, self.known)


def follow(path, folder):
    """What a page came to: how much was done, what was left out and why, what is wrong, and how long it took."""
    began, page = time.monotonic(), read(path)
    for block in page.blocks:
        if "needs" in block.options:
            has(block.options["needs"])
    reader = Reader(page, folder)
    try:
        if page.demo:
            reader.market()
        for block in page.blocks:
            try:
                at = time.monotonic()
                reader.do(block)
                if time.monotonic() - at > SLOW:
                    print(f"       {page.name}:{block.line} took {time.monotonic() - at:.1f} s", file=sys.stderr)
            except (Wrong, ValueError, KeyError, OSError, AttributeError, yaml.YAMLError) as error:
                return page, reader, f"{page.name}:{block.line}: {error}", time.monotonic() - began
        return page, reader, None, time.monotonic() - began
    except Wrong as error:
        return page, reader, f"{page.name}: {error}", time.monotonic() - began
    finally:
        reader.end()


def main(words):
    if words == ["--write"]:
        return reference.write()
    checks = [0, 0]

    def told(what, wrong):
        checks[bool(wrong)] += 1
        print(f"{'FAILED' if wrong else 'ok    '} {what}")
        for line in wrong:
            print(f"       {line}", file=sys.stderr)

    if not words:
        count, wrong = links.check()
        told(f"{count} links and the contents of the book", wrong)
        for name, wrong in reference.check():
            told(name, wrong)
    pages = [path for path in links.markdown() if path.name != "SUMMARY.md" and (path.is_relative_to(ROOT / "docs") or path.parent == ROOT)]
    pages = [path for path in pages if not words or any(word in str(path.relative_to(ROOT)) for word in words)]
    left = []
    with tempfile.TemporaryDirectory(prefix="zerostate-docs-") as folder:
        with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
            done = [pool.submit(follow, path, Path(folder) / str(number)) for number, path in enumerate(pages)]
            blocks = 0
            for result in done:
                page, reader, wrong, took = result.result()
                left += reader.left
                blocks += reader.done
                if page.blocks or wrong:
                    told(f"{page.name}: {reader.done} blocks, {len(reader.left)} not executed, {took:.1f} s", [wrong] if wrong else [])
    if left:
        print("not executed, and why:")
        for line in left:
            print(f"  {line}")
    print(f"documents: {checks[0]} passed, {checks[1]} failed; {blocks} blocks, {len(left)} not executed")
    return checks[1]


sys.exit(bool(main(sys.argv[1:])))
