"""Tries what the image holds as the image runs it: alone in a file system that cannot be written to but for /data, as a user without
rights. Needs root, to make such a place. Ends with `image: N passed, N failed`."""

import json
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
IMAGE = Path(sys.argv[1]).resolve()
UID = 65532
MB = 1_000_000
# What the image may come to: unpacked, and as it travels. docs/deployment.md says where the bytes are.
MOST_UNPACKED = 50 * MB
MOST_PACKED = 25 * MB
# What the base brings: certificates, time zones, names.
BASE = 2 * MB
# deploy/ gives an instance this long to end.
GRACE = 60

ENV = dict(re.findall(r"(\w+)=(\S+)", re.search(r"(?m)^ENV (HOST=.*)$", (ROOT / "Dockerfile").read_text())[1]))


class Place:
    """The root of the image with what the base has, and a way to run in it."""

    def __init__(self):
        self.folder = Path(tempfile.mkdtemp())
        shutil.copytree(IMAGE, self.folder, dirs_exist_ok=True)
        (self.folder / "etc/ssl/certs").mkdir(parents=True)
        certificates = Path("/etc/ssl/certs/ca-certificates.crt")
        if certificates.exists():
            shutil.copy(certificates, self.folder / "etc/ssl/certs")
        (self.folder / "etc/passwd").write_text(f"nonroot:x:{UID}:{UID}:nonroot:/home/nonroot:/sbin/nologin\n")
        (self.folder / "etc/nsswitch.conf").write_text("hosts: files dns\n")
        (self.folder / "etc/hosts").write_text("127.0.0.1 localhost in-hosts\n")
        (self.folder / "etc/resolv.conf").write_text("nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")
        os.chown(self.folder / "data", UID, UID)
        for name in ("proc", "dev"):
            (self.folder / name).mkdir()
        for device in ("null", "random", "urandom"):
            (self.folder / "dev" / device).touch()

    def command(self, *arguments):
        # What every container has beside its image: a few devices, and /proc.
        inside = ('mount --bind "$1" "$1" && mount --bind "$1/data" "$1/data" && mount -t proc proc "$1/proc" && '
                  'for it in null random urandom; do mount --bind /dev/$it "$1/dev/$it" || exit; done && '
                  'mount -o remount,bind,ro "$1" && shift && exec "$@"')
        chroot = ["chroot", f"--userspec={UID}:{UID}", str(self.folder), "/zerostate", *arguments]
        return ["unshare", "--mount", "sh", "-c", inside, "sh", str(self.folder), "setpriv", "--no-new-privs", *chroot]

    def run(self, *arguments, env=None, **options):
        return subprocess.run(self.command(*arguments), env={"PATH": os.environ["PATH"], **ENV, **(env or {})}, capture_output=True,
                              text=True, timeout=120, **options)


def it_is_static():
    elf = subprocess.run(["readelf", "--program-headers", "--dynamic", IMAGE / "zerostate"], capture_output=True, text=True).stdout
    assert "INTERP" not in elf and "NEEDED" not in elf, "the binary wants a loader or a library"
    said = subprocess.run(["ldd", IMAGE / "zerostate"], capture_output=True, text=True)
    assert "statically linked" in said.stdout or "not a dynamic executable" in said.stderr, said


def it_is_small():
    files = [path for path in IMAGE.rglob("*") if path.is_file()]
    unpacked = sum(path.stat().st_size for path in files) + BASE
    packed = len(subprocess.run(["sh", "-c", f"tar -C '{IMAGE}' -c . | gzip"], capture_output=True).stdout) + BASE // 2
    print(f"        {unpacked / MB:.1f} MB unpacked, {packed / MB:.1f} MB to download; "
          f"the binary has {(IMAGE / 'zerostate').stat().st_size / MB:.1f} MB")
    assert unpacked <= MOST_UNPACKED, f"at most {MOST_UNPACKED / MB} MB unpacked"
    assert packed <= MOST_PACKED, f"at most {MOST_PACKED / MB} MB to download"
    assert {path.parts[len(IMAGE.parts)] for path in files} == {"zerostate", "licenses"}, files


def it_has_the_licences_of_what_is_in_it():
    texts = subprocess.run(["gzip", "-dc", IMAGE / "licenses/THIRD-PARTY.txt.gz"], capture_output=True, text=True).stdout
    for crate in ("wasmtime ", "ring ", "rustls ", "sqlx ", "async-graphql ", "libsqlite3-sys "):
        assert f"\n{crate}" in texts, crate


def it_says_what_it_is():
    done = PLACE.run("version", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["profile"] == "release", done.stdout


def it_serves_and_ends_in_order():
    with tempfile.TemporaryFile("w+") as log:
        server = subprocess.Popen(PLACE.command("serve"), env={"PATH": os.environ["PATH"], **ENV}, stdout=log, stderr=log)
        try:
            began = time.monotonic()
            while PLACE.run("healthcheck").returncode != 0:
                log.seek(0)
                assert server.poll() is None and time.monotonic() - began < 30, log.read()
                time.sleep(0.2)
            base = f"http://127.0.0.1:{ENV['PORT']}"
            with urllib.request.urlopen(f"{base}/ready") as reply:
                assert json.load(reply)["status"] == "ready"
            with urllib.request.urlopen(f"http://127.0.0.1:{ENV['ZEROSTATE_METRICS_ADDRESS'].rsplit(':')[-1]}/metrics") as reply:
                assert b"zerostate_" in reply.read()
            body = json.dumps({"query": "{ serviceInfo { version } }"}).encode()
            asked = urllib.request.Request(f"{base}/graphql", body, {"content-type": "application/json"})
            with urllib.request.urlopen(asked) as reply:
                assert json.load(reply)["data"]["serviceInfo"]["version"], "it answers"
            seen = 0
            for process in (int(pid) for pid in os.listdir("/proc") if pid.isdigit()):
                try:
                    same = os.readlink(f"/proc/{process}/root") == str(PLACE.folder)
                except OSError:
                    continue
                if same:
                    seen += 1
                    status = Path(f"/proc/{process}/status").read_text()
                    assert re.search(rf"(?m)^Uid:\t{UID}\t{UID}", status) and re.search(r"(?m)^CapEff:\t0+$", status), status
            assert seen == 1, f"{seen} processes run in the place"
            told = time.monotonic()
            server.send_signal(signal.SIGTERM)
            code = server.wait(GRACE)
            log.seek(0)
            assert code == 0, log.read()
            print(f"        it ended {time.monotonic() - told:.1f} s after it was told to")
        finally:
            server.kill()
            server.wait()
    written = {path.relative_to(PLACE.folder).parts[0] for path in PLACE.folder.rglob("*") if path.stat().st_uid == UID}
    assert written == {"data"}, written
    assert (PLACE.folder / "data/zerostate.db").exists()


def it_does_a_task():
    done = PLACE.run("demo", "--once", "--keep", "/data/demo", "--capability", "text.stats", "--input", "-", "--budget", "2.5", "--json",
                     input="to be, or not to be")
    assert done.returncode == 0, done.stderr


def it_resolves_names():
    """glibc is linked statically, and resolves by the file and by DNS without loading anything."""
    asked = []
    dns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    dns.bind(("127.0.0.1", 53))

    def answer():
        while True:
            try:
                query, who = dns.recvfrom(512)
            except OSError:
                return
            end = query.index(b"\0", 12) + 5
            (kind,) = struct.unpack(">H", query[end - 4:end - 2])
            asked.append(kind)
            found = b"\xc0\x0c\0\1\0\1\0\0\0\1\0\4\x7f\0\0\1" if kind == 1 and b"in-dns" in query else b""
            dns.sendto(query[:2] + b"\x81\x80\0\1" + struct.pack(">H", bool(found)) + b"\0\0\0\0" + query[12:end] + found, who)

    threading.Thread(target=answer, daemon=True).start()
    try:
        for name in ("in-hosts", "in-dns.example"):
            done = PLACE.run("migrate", "status", env={"DATABASE_URL": f"postgres://nobody@{name}:1/nothing"})
            # Whoever is found and refuses is tried again until the patience for a connection is over.
            assert done.returncode == 4 and "pool timed out" in done.stderr, f"{name}: {done.returncode} {done.stderr}"
        done = PLACE.run("migrate", "status", env={"DATABASE_URL": "postgres://nobody@nowhere.example:1/nothing"})
        assert done.returncode == 4 and "lookup" in done.stderr, f"{done.returncode} {done.stderr}"
        assert asked, "the name server was asked"
    finally:
        dns.close()


CHECKS = [it_is_static, it_is_small, it_has_the_licences_of_what_is_in_it, it_says_what_it_is, it_serves_and_ends_in_order, it_does_a_task,
          it_resolves_names]
if os.geteuid() != 0:
    sys.exit("image.py: making a place as bare as the image needs root; run it as root, or `docker build` on a machine with Docker")
PLACE = Place()
failed = 0
try:
    for check in CHECKS:
        try:
            check()
            print(f"ok      {check.__name__}")
        except Exception as error:
            failed += 1
            print(f"FAILED  {check.__name__}: {error}")
            if not isinstance(error, AssertionError):
                traceback.print_exc()
finally:
    shutil.rmtree(PLACE.folder)
print(f"image: {len(CHECKS) - failed} passed, {failed} failed")
sys.exit(bool(failed))
