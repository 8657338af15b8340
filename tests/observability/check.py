"""Checks metrics, rules, dashboards and runbooks against one another and against the running program."""

import contextlib
import gzip
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request

FOLDER = pathlib.Path("deploy/observability")
RUNBOOKS = pathlib.Path("docs/runbooks")
# How long the demonstration is scraped at least, and how long a panel may take to find something.
WARM_UP, PATIENCE = 15, 90
MOST_SERIES = 800

passed, failed = 0, 0


def check(what, wrong):
    """Counts one check; `wrong` says what is wrong with it, if anything is."""
    global passed, failed
    if wrong:
        failed += 1
        print(f"FAILED {what}\n{wrong}", flush=True)
    else:
        passed += 1
        print(f"ok     {what}", flush=True)


def output(*command, stdin=None):
    ran = subprocess.run(command, capture_output=True, text=True, input=stdin)
    return ran.returncode, (ran.stdout + ran.stderr).strip()


def tool(what, *command):
    code, said = output(*command)
    check(what, said if code else "")


def get(url, **headers):
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=10) as answer:
        return answer.headers, answer.read()


def free_port():
    with socket.socket() as it:
        it.bind(("127.0.0.1", 0))
        return it.getsockname()[1]


@contextlib.contextmanager
def running(log, *command):
    """A process that ends with the block, and whose log is shown when it ended before."""
    with open(log, "wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)
    try:
        yield process
        if process.poll() is not None:
            raise RuntimeError(f"{command[0]} ended by itself:\n{log.read_text()}")
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def until_answers(url, process, log):
    ends = time.monotonic() + PATIENCE
    while True:
        try:
            return get(url)
        except OSError:
            if time.monotonic() > ends or process.poll() is not None:
                raise RuntimeError(f"{url} does not answer:\n{log.read_text()}")
            time.sleep(0.2)


def alerts():
    """The alerts with the pages that they name, read as text: every alert has one line for each."""
    text = (FOLDER / "rules.yml").read_text()
    names = re.findall(r"^ *- alert: (\w+)$", text, re.M)
    pages = re.findall(r"^ *runbook_url: (\S+)$", text, re.M)
    assert len(names) == len(pages) > 0
    return dict(zip(names, pages))


def check_files():
    tool("the rules are sound", "promtool", "check", "rules", "--lint=all", "--lint-fatal", str(FOLDER / "rules.yml"))
    tool("each alert fires when it should and not else", "promtool", "test", "rules", str(FOLDER / "rules_test.yml"))
    tool("the configuration of Prometheus is sound", "promtool", "check", "config", str(FOLDER / "prometheus.yml"))
    tool("the dashboards are what their list gives", sys.executable, str(FOLDER / "dashboards.py"), "--check")
    named = alerts()
    tested = (FOLDER / "rules_test.yml").read_text()
    for name, page in named.items():
        path = pathlib.Path(page)
        fires = re.search(rf"alertname: {name}\n *exp_alerts:\n", tested)
        silent = f"alertname: {name}, exp_alerts: []" in tested
        wrong = "" if fires and silent else "rules_test.yml does not show that it fires, and that it does not"
        if not path.is_file():
            wrong = f"{page} does not exist"
        elif path.read_text().splitlines()[0] != f"# {name}":
            wrong = f"{page} is about something else"
        check(f"{name} has its page and its tests", wrong)
    pages = {str(path) for path in RUNBOOKS.glob("*.md")} - {str(RUNBOOKS / "README.md")}
    index = (RUNBOOKS / "README.md").read_text()
    lost = sorted(pages - set(named.values())) + sorted(name for name in named if f"[{name}]" not in index)
    check("each page has its alert, and the index names all", ", ".join(lost))


def check_page(address):
    page = get(f"http://{address}/metrics")[1].decode()
    code, said = output("promtool", "check", "metrics", stdin=page)
    check("promtool check metrics says nothing", said or (f"exit code {code}" if code else ""))
    series = [line for line in page.splitlines() if line and not line.startswith("#")]
    check(f"there are less than {MOST_SERIES} series", "" if len(series) < MOST_SERIES else str(len(series)))
    began = time.monotonic()
    headers, packed = get(f"http://{address}/metrics", **{"Accept-Encoding": "gzip"})
    took = time.monotonic() - began
    same = headers["Content-Encoding"] == "gzip" and len(gzip.decompress(packed).splitlines()) == len(page.splitlines())
    check("the page is compressed for who takes that", "" if same else str(headers))
    print(f"       {len(series)} series, {len(page)} bytes, {len(packed)} compressed, {took * 1000:.0f} ms", flush=True)
    return {re.split(r"[ {]", line)[0] for line in series}


def check_names(names):
    """Every metric that is named anywhere is there."""
    places = [FOLDER / "rules.yml", *FOLDER.glob("dashboards/*.json"), *RUNBOOKS.glob("*.md")]
    for place in places:
        named = set(re.findall(r"(?<![:\w])zerostate_[a-z_]+", place.read_text()))
        check(f"{place} names metrics that exist", ", ".join(sorted(named - names)))


class Prometheus:
    def __init__(self, port):
        self.api = f"http://127.0.0.1:{port}/api/v1"

    def query(self, expression):
        """How many series an expression finds; why not, if it cannot be asked."""
        url = f"{self.api}/query?" + urllib.parse.urlencode({"query": expression})
        try:
            return len(json.loads(get(url)[1])["data"]["result"]), ""
        except urllib.error.HTTPError as error:
            return 0, error.read().decode()

    def waited(self, expression, ends):
        """The same, once it finds something or until `ends`."""
        while True:
            found, wrong = self.query(expression)
            if found or wrong or time.monotonic() > ends:
                return wrong or ("" if found else f"{expression}\nfinds nothing")
            time.sleep(1)


def panels():
    for path in sorted(FOLDER.glob("dashboards/*.json")):
        for panel in json.loads(path.read_text())["panels"]:
            for target in panel["targets"]:
                expression = target["expr"].replace("$job", "zerostate").replace("$__rate_interval", "15s")
                yield f"{path.stem}: {panel['title']}: {target['legendFormat']}", expression


def check_running(prometheus):
    ends = time.monotonic() + PATIENCE
    for what, expression in panels():
        check(what, prometheus.waited(expression, ends))
    for group in json.loads(get(f"{prometheus.api}/rules")[1])["data"]["groups"]:
        for rule in group["rules"]:
            wrong = rule.get("lastError") or ("" if rule["health"] == "ok" else rule["health"])
            if not wrong and rule["type"] == "recording":
                wrong = prometheus.waited(rule["name"], ends)
            elif not wrong:
                # An alert finds nothing while all is well, so the metrics in it have to be found.
                for name in sorted(set(re.findall(r"(?:job:|zerostate_)\w[\w:]*|\bup\b", rule["query"]))):
                    wrong = wrong or prometheus.waited(name, ends)
                if rule["state"] == "firing":
                    wrong = f"fires on a demonstration in which all is well: {rule['alerts']}"
            check(f"rule {rule['name']}", wrong)
    for path in sorted(RUNBOOKS.glob("*.md")):
        for block in re.findall(r"```promql\n(.*?)```", path.read_text(), re.S):
            for line in block.strip().splitlines():
                check(f"{path.name}: {line[:60]}", prometheus.query(line)[1])


def main():
    check_files()
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        address, port = f"127.0.0.1:{free_port()}", free_port()
        config = (FOLDER / "prometheus.yml").read_text()
        config = re.sub(r"_interval: \w+", "_interval: 1s", config).replace("zerostate:9091", address)
        (folder / "prometheus.yml").write_text(config)
        (folder / "rules.yml").write_text((FOLDER / "rules.yml").read_text())
        service, scraper = folder / "service.log", folder / "prometheus.log"
        binary = os.environ.get("CARGO_TARGET_DIR", "target") + "/debug/zerostate"
        demo = [binary, "demo", "--port", "0", "--speed", "50", "--quiet", "--metrics-address", address]
        with running(service, *demo) as process:
            until_answers(f"http://{address}/ready", process, service)
            options = [f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data",
                       f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn"]
            with running(scraper, "prometheus", *options) as watcher:
                prometheus = Prometheus(port)
                until_answers(f"http://127.0.0.1:{port}/-/ready", watcher, scraper)
                time.sleep(WARM_UP)
                check_names(check_page(address))
                check_running(prometheus)
    print(f"observability: {passed} passed, {failed} failed")
    sys.exit(1 if failed or not passed else 0)


main()
