"""Many tasks over many agents at once: all of them end, the money adds up, and it says how long it took."""

import json
import os
import sys
import tempfile
import threading
import time
from collections import Counter
from decimal import Decimal
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "examples"))
from agents import COMMANDS, Example  # noqa: E402
from market import ADMIN, PROGRAM, ROOT, Client, Server  # noqa: E402

HOSTED, OWNERS, REQUESTERS = 50, 10, 8
OVER = {"COMPLETED", "REFUNDED", "EXPIRED", "CANCELLED"}
TEXT = ("A channel lets two parties exchange many payments while only two of them are written down. "
        "Whoever closes the channel with an old promise can be corrected by the other party within a waiting time. ") * 20
INPUTS = {
    "text.stats": TEXT,
    "text.keywords": TEXT,
    "csv.summary": "day,store,units\n" + "".join(f"2026-03-{day:02},North,{day * 3}\n" for day in range(1, 31)),
    "json.validate": {"schema": {"type": "object", "required": ["id"]}, "value": {"id": 7}},
    "text.transform": {"text": TEXT, "operation": "reverse"},
}


def hosted(server):
    """Fifty agents of ten owners with the sample modules, in five lots of ten, each at a price of its own."""
    samples = json.loads((ROOT / "agents/agents.json").read_text())
    owners = [Client(server).user(f"owner-{number}") for number in range(OWNERS)]
    for number in range(HOSTED):
        sample, owner = samples[number % len(samples)], owners[number // len(samples) % OWNERS]
        price = Decimal(sample["price"]) + Decimal(number) / 1000
        thorough = ["thorough"] if sample["name"].endswith("-pro") else []
        capabilities = [*sample["capabilities"], f"lot-{number // len(samples)}", *thorough]
        new = {"name": f"{sample['name']}-{number}", "capabilities": capabilities, "runtime": "HOSTED", "price": str(price),
               "minPrice": str(price), "idempotencyKey": f"hosted-{number}"}
        agent = owner.do("registerAgent", "agent { id }", new)["agent"]["id"]
        module = (ROOT / "agents/wasm" / sample["module"]).read_bytes()
        owner.send(f"/agents/{agent}/module", module, "application/wasm", "PUT")
    return owners


def main(count):
    with tempfile.TemporaryDirectory(prefix="zerostate-load-") as folder:
        server = Server(folder)
        examples = [Example(language, server) for language in COMMANDS]
        try:
            server.start()
            play(server, examples, count)
        finally:
            for process in [example.process for example in examples if hasattr(example, "process")] + [server.process]:
                if process and process.poll() is None:
                    process.kill()


def play(server, examples, count):
    admin = Client(server).login(ADMIN)
    owners = hosted(server)
    for example in examples:
        example.start()
    requesters = [Client(server).user(f"requester-{number}") for number in range(REQUESTERS)]
    for requester in requesters:
        admin.credit(requester, "100000")
    until = time.monotonic() + 60
    while not all("is on the market" in example.said() for example in examples):
        assert time.monotonic() < until, "\n".join(example.said() for example in examples)
        time.sleep(0.1)

    # One task in twenty goes to an outside agent, in turn; the others to whichever hosted agent wins.
    kinds = list(INPUTS)
    orders = []
    for number in range(count):
        if number % 20 == 0:
            example = examples[number // 20 % len(examples)]
            orders.append({"capabilities": [example.capability], "input": TEXT, "closesIn": "PT10S"})
        else:
            # Every agent is the one to take for some: of its capability, in its lot, thorough or cheap.
            kind, lot, thorough = kinds[number % len(kinds)], number // 5 % 5, ["thorough"] if number // 25 % 2 else []
            orders.append({"capabilities": [kind, f"lot-{lot}", *thorough], "input": INPUTS[kind]})
    troubles = []

    def post(requester, mine):
        try:
            for number, order in mine:
                requester.execute(title=f"Task {number}", budget="5", idempotencyKey=f"load-{number}", **order)
        except Exception as error:  # it is told below
            troubles.append(error)

    began = time.monotonic()
    numbered = list(enumerate(orders))
    threads = [threading.Thread(target=post, args=(requester, numbered[place::REQUESTERS])) for place, requester in enumerate(requesters)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not troubles, troubles
    posted = time.monotonic() - began
    until = time.monotonic() + 600
    waiting = "{ tasks(filter: {side: REQUESTER, status: [OPEN, AWARDED, RUNNING, SUBMITTED]}, first: 1) { nodes { id } } }"
    while any(requester.ask(waiting)["tasks"]["nodes"] for requester in requesters):
        assert time.monotonic() < until, "tasks do not end"
        time.sleep(0.2)
    took, peak = time.monotonic() - began, server.peak_memory()

    tasks = [task for requester in requesters for task in requester.tasks("id status paid capabilities failureCode agent { id }")]
    ends = Counter(task["status"] for task in tasks)
    outside = [task for task in tasks if task["capabilities"][0].startswith("text.summary.")]
    paid = sum(Decimal(task["paid"] or 0) for task in tasks)
    for example in examples:
        example.check_alive()
        print(f"{example.language}: {example.stop()}")
    earned = Decimal(0)
    for owner in owners + [Client(server).login(f"{example.language}@example.com") for example in examples]:
        page = owner.ask("{ me { agents(first: 100) { nodes { earnings } } } }")["me"]["agents"]["nodes"]
        earned += sum(Decimal(agent["earnings"]) for agent in page)
    workers = len({task["agent"]["id"] for task in tasks if task["agent"]})
    server.stop()
    began = time.monotonic()
    server.audit()
    audited = time.monotonic() - began
    build = "release" if "/release/" in PROGRAM else "debug"
    print(f"load: {len(tasks)} tasks ({len(outside)} by outside agents) over {HOSTED} hosted and {len(examples)} outside agents, "
          f"{workers} of which won; {dict(ends)}")
    print(f"load: posted in {posted:.1f} s, all over in {took:.1f} s ({len(tasks) / took:.0f} a second), {build} build, "
          f"{os.cpu_count()} cores; the server's most resident memory was {peak:.0f} MiB; the audit is clean, in {audited:.1f} s")
    assert workers >= min(count // 4, HOSTED + len(examples)), f"only {workers} agents won"
    assert len(tasks) == count and set(ends) == {"COMPLETED"}, [task for task in tasks if task["status"] != "COMPLETED"][:5]
    assert earned == paid, f"{earned} earned, {paid} paid"


main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000)
