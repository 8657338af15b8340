"""What the suite drives and watches: databases by psql, servers as processes, wrk, oha and pgbench, and what they take of the machine."""

import json
import os
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(ROOT / "tests/examples"))
from market import ADMIN, PASSWORD, PROGRAM, Client, Server, environment  # noqa: E402, F401

DATABASE = os.environ["BENCH_DATABASE"]
POSTMASTER = int(os.environ["BENCH_POSTMASTER"])
OHA = os.environ["OHA"]
TICK = os.sysconf("SC_CLK_TCK")
ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
HTTP = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def say(text):
    print(f"load: {text}", flush=True)


def wire(prefix, uuid):
    """An id as the API writes it."""
    bits = int(uuid.replace("-", ""), 16)
    return prefix + "_" + "".join(ALPHABET[bits >> 5 * place & 31] for place in reversed(range(26)))


def stored(text):
    """The UUID of an id of the API."""
    bits = 0
    for letter in text.split("_")[1]:
        bits = bits << 5 | ALPHABET.index(letter)
    number = f"{bits:032x}"
    return "-".join((number[:8], number[8:12], number[12:16], number[16:20], number[20:]))


def numbered(kind, number):
    """The id that seed.sql gives to the nth of a kind."""
    return f"01900000-0000-7{kind:03x}-8000-{number:012x}"


def sql(database, text):
    """The rows of a statement, as lists of words."""
    done = subprocess.run(["psql", "--no-psqlrc", "-qAt", "-F", "\t", "-v", "ON_ERROR_STOP=1", "-c", text, f"{DATABASE}/{database}"],
                          capture_output=True, text=True, check=False)
    if done.returncode:
        raise AssertionError(f"{text}\n{done.stderr}")
    return [line.split("\t") for line in done.stdout.splitlines()]


def post(url, body, token=None):
    headers = {"content-type": "application/json"} | ({"authorization": f"Bearer {token}"} if token else {})
    with HTTP.open(urllib.request.Request(url, json.dumps(body).encode(), headers), timeout=60) as answer:
        return json.load(answer)


class Market(Server):
    """The server that is measured. Its settings are ones that an operator may choose; none takes away a check or a guarantee."""

    SETTINGS = ["--points-per-second", "0", "--requests-per-caller", "1024", "--access-token-life", "12h"]

    def __init__(self, folder, database=None):
        Path(folder).mkdir(parents=True, exist_ok=True)
        self.database = database
        self.place = ["--database-url", f"{DATABASE}/{database}"] if database else []
        super().__init__(folder, [*self.place, *self.SETTINGS])

    def audit(self):
        """Ends the suite when the books are not in order."""
        done = subprocess.run([PROGRAM, "audit", "--data", str(self.folder / "data"), *self.place], env=environment(),
                              capture_output=True, text=True, check=False)
        if done.returncode:
            raise AssertionError(f"the audit of {self.database or 'SQLite'}:\n{done.stdout}{done.stderr}")
        return len(done.stdout.splitlines())

    @property
    def pids(self):
        return [self.process.pid]


class Peer:
    """Another GraphQL server over the tables of the database `peer`."""

    def __init__(self, name, log):
        self.name, self.log, self.process = name, log, None
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def start(self):
        known = {"NODE_ENV": "production", "DATABASE_URL": f"{DATABASE}/peer", "PORT": str(self.port), "POOL": "12", "PATH": os.environ["PATH"]}
        self.process = subprocess.Popen(["node", str(HERE / "peers" / f"{self.name}.mjs")], env=known, stdin=subprocess.DEVNULL,
                                        stdout=open(self.log, "wb"), stderr=subprocess.STDOUT)
        until = time.monotonic() + 90
        while True:
            try:
                if "data" in post(self.url + "/graphql", {"query": "{ __typename }"}):
                    return
            except OSError:
                pass
            assert self.process.poll() is None and time.monotonic() < until, f"{self.name} does not start:\n{Path(self.log).read_text()}"
            time.sleep(0.2)

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(30)

    @property
    def pids(self):
        return [self.process.pid]


def spent(pid, children=False):
    """Seconds of CPU of a process so far, and of those children that have ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return 0.0
    return sum(int(field) for field in fields[11:15 if children else 13]) / TICK


def postgres_spent():
    """Seconds of CPU of all processes of the database so far."""
    children = Path(f"/proc/{POSTMASTER}/task/{POSTMASTER}/children").read_text().split()
    return spent(POSTMASTER, True) + sum(spent(child, True) for child in children)


def memory(pid):
    """MiB that a process has resident."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return 0.0


def machine():
    """Ticks of all processors, and those that other guests took."""
    fields = [int(field) for field in Path("/proc/stat").read_text().splitlines()[0].split()[1:]]
    return sum(fields[:8]), fields[7]


class Watch:
    """What the processes take while something runs."""

    def __init__(self, pids):
        self.pids = pids
        self.before = [sum(map(spent, pids)), postgres_spent()]
        self.ticks = machine()

    def stop(self, result, loader):
        server, database = sum(map(spent, self.pids)), postgres_spent()
        ticks = machine()
        requests = max(result["requests"], 1)
        result["cpu"] = {"server": (server - self.before[0]) * 1e6 / requests, "postgres": (database - self.before[1]) * 1e6 / requests,
                         "loader": loader * 1e6 / requests}
        result["loader"] = loader
        result["stolen"] = (ticks[1] - self.ticks[1]) / max(ticks[0] - self.ticks[0], 1)
        if self.pids:
            result["rss"] = sum(map(memory, self.pids))
        return result


def run(command, env=None, cwd=None):
    """The output of a command that has to end well, and the CPU that it took."""
    with tempfile.TemporaryFile("w+") as out:
        process = subprocess.Popen(command, env=env, cwd=cwd, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        text = out.read()
    if process.returncode:
        raise AssertionError(f"{' '.join(map(str, command))} ended with {process.returncode}:\n{text[-3000:]}")
    return text, usage.ru_utime + usage.ru_stime


def wrk(url, clients, seconds, pids, **given):
    """A closed loop of wrk. `given` becomes the LOAD_* of bench.lua."""
    env = {"PATH": os.environ["PATH"]} | {f"LOAD_{name.upper()}": str(value) for name, value in given.items()}
    watch = Watch(pids)
    command = ["wrk", "-t1", f"-c{clients}", f"-d{seconds}s", "--timeout", "20s", "-s", str(HERE / "bench.lua"), url]
    text, loader = run(command, env)
    found = re.search(r"^LOAD (.*)$", text, re.M)
    assert found, text
    result = json.loads(found[1])
    result["rate"] = result["requests"] * 1e6 / result["micros"]
    if result["wrong"]:
        raise AssertionError(f"{result['wrong']} wrong answers of {url} to {given.get('name') or given.get('mode')}:\n{text[-1500:]}")
    return watch.stop(result, loader)


def pgbench(database, scripts, clients, seconds, **variables):
    """A closed loop of pgbench with prepared statements."""
    with tempfile.TemporaryDirectory() as folder:
        watch = Watch([])
        command = ["pgbench", "-n", "-M", "prepared", "-c", str(clients), "-j", str(min(2, clients)), "-T", str(seconds), "-l"]
        command += [word for name, value in variables.items() for word in ("-D", f"{name}={value}")]
        command += [word for script in scripts for word in ("-f", str(script))]
        text, loader = run([*command, f"{DATABASE}/{database}"], cwd=folder)
        times = sorted(int(line.split(" ", 3)[2]) for log in Path(folder).iterdir() for line in log.open())
    # A database whose disk stalls for all of a short round has ended nothing, and pgbench says no rate; one transaction is the most then.
    found = re.search(r"tps = ([\d.]+)", text)
    rate, times = (float(found[1]), times) if found and times else (1 / seconds, [seconds * 1_000_000])
    wrong = re.search(r"number of failed transactions: (\d+)", text)
    if "ERROR" in text or "aborted" in text or (wrong and int(wrong[1])):
        raise AssertionError(text[-3000:])
    place = lambda share: times[min(len(times) - 1, int(len(times) * share))] / 1000  # noqa: E731
    return watch.stop({"requests": len(times), "rate": rate, "p50": place(0.5), "p90": place(0.9), "p99": place(0.99), "p999": place(0.999),
                       "wrong": 0}, loader)


def oha(url, clients, seconds, rate, pids, body=None, token=None):
    """So many requests a second whatever the answers take, each measured from when it was due."""
    command = [OHA, "--no-tui", "--output-format", "json", "-z", f"{seconds}s", "-c", str(clients), "-q", str(rate), "--latency-correction"]
    if body:
        command += ["-m", "POST", "-T", "application/json", "-Z", str(body), "-H", f"authorization: Bearer {token}"]
    watch = Watch(pids)
    text, loader = run([*command, url])
    told = json.loads(text[text.index("{"):])
    codes = told["statusCodeDistribution"]
    # What is under way at the end is aborted, and no answer is wrong for that.
    lost = {name: number for name, number in told["errorDistribution"].items() if "deadline" not in name}
    assert set(codes) == {"200"} and not lost, (codes, lost)
    ms = {name: value * 1000 for name, value in told["latencyPercentiles"].items() if value is not None}
    result = {"requests": codes["200"], "rate": told["summary"]["requestsPerSec"], "wanted": rate, "p50": ms["p50"], "p90": ms["p90"],
              "p99": ms["p99"], "p999": ms.get("p99.9", ms["p99"]), "curve": ms, "wrong": 0}
    return watch.stop(result, loader)


def median(rounds, name="rate"):
    return statistics.median(entry[name] for entry in rounds)


class Background:
    """Something that runs beside."""

    def __init__(self, work):
        self.result, self.error = None, None

        def go():
            try:
                self.result = work()
            except BaseException as error:  # it is raised where it is asked for
                self.error = error

        self.thread = threading.Thread(target=go)
        self.thread.start()

    def wait(self):
        self.thread.join()
        if self.error:
            raise self.error
        return self.result
