"""Runs the example agents on a market whose server is killed in the middle, and says how each did."""

import sys
import tempfile
import time
from decimal import Decimal

from agents import COMMANDS, Example
from market import ADMIN, Client, Server

POSTING, KILL, DOWN, ENDING = 30, 14, 1.0, 90
OVER = {"COMPLETED", "REFUNDED", "EXPIRED", "CANCELLED"}
TEXT = ("A market needs rules that everybody can check. Prices tell what is scarce. A market whose prices nobody trusts is no market. "
        "The rules of this market are written down, and the books of the market are open. Rain fell in the night.")

OUTPUT = {"summary": "A market needs rules that everybody can check.", "words": 43}


def main(words):
    wanted = [language for language in COMMANDS if not words or language in words]
    assert wanted, f"no example agent has such a name; there are {', '.join(COMMANDS)}"
    with tempfile.TemporaryDirectory(prefix="zerostate-examples-") as folder:
        server = Server(folder, ["--lease", "2"])
        examples = [Example(language, server, seconds=2.2) for language in wanted]
        try:
            server.start()
            play(server, examples)
        finally:
            for process in [example.process for example in examples if hasattr(example, "process")] + [server.process]:
                if process and process.poll() is None:
                    process.kill()


def play(server, examples):
    admin = Client(server).login(ADMIN)
    requester = Client(server).user("requester")
    admin.credit(requester, "1000")
    for example in examples:
        example.start()
    until = time.monotonic() + 30
    while not all("is on the market" in example.said() for example in examples):
        assert time.monotonic() < until, "\n".join(example.said() for example in examples)
        for example in examples:
            example.check_alive()
        time.sleep(0.1)
    began, killed, posted = time.monotonic(), False, {}
    while time.monotonic() < began + POSTING:
        if not killed and time.monotonic() > began + KILL:
            killed = True
            server.kill()
            time.sleep(DOWN)
            server.start()
        example = examples[len(posted) % len(examples)]
        task = requester.execute(title="Shorten this", capabilities=[example.capability], input=TEXT, budget="2", closesIn="PT6S")
        posted[task] = example
        time.sleep(0.9)
    until = time.monotonic() + ENDING
    while any(task["status"] not in OVER for task in requester.tasks()):
        assert time.monotonic() < until, f"not over: {requester.tasks()}\n" + "\n".join(example.said() for example in examples)
        time.sleep(0.5)
    tasks = requester.tasks("id status paid failureCode failureMessage agent { id earnings } result { output timeline(first: 100) { nodes { kind } } }")
    assert {task["id"] for task in tasks} == set(posted), "a task that was acknowledged is gone"
    failures = []
    for example in examples:
        mine = [task for task in tasks if posted[task["id"]] is example]
        last = example.stop()
        paid = sum(Decimal(task["paid"] or 0) for task in mine)
        owner = Client(server).login(f"{example.language}@example.com")
        agent = owner.ask("{ me { agents(first: 5) { nodes { name earnings } } } }")["me"]["agents"]["nodes"][0]
        lost = [task for task in mine if task["status"] != "COMPLETED"]
        retried = [task for task in mine if any(event["kind"] == "TASK_RETRIED" for event in task["result"]["timeline"]["nodes"])]
        wrong = [task for task in mine if (task["result"] or {}).get("output") != OUTPUT]
        # Work takes longer than a lease, so it is signs of life that keep it; only the kill may cost one.
        good = (len(mine) >= 5 and not lost and not wrong and len(retried) <= 1 and Decimal(agent["earnings"]) == paid == Decimal("1.4") * len(mine)
                and last == f"earned {agent['earnings']}" and "trying again" in example.said())
        print(f"{example.language:<11} {'ok    ' if good else 'FAILED'} {len(mine)} tasks, {paid} credits paid, account {agent['earnings']}, "
              f"{len(lost)} lost, {len(retried)} retried; said at the end: {last}")
        if not good:
            failures.append(example)
            print(f"lost {lost}\nwrong {wrong}\n{example.said()}", file=sys.stderr)
    server.stop()
    server.audit()
    print(f"examples: {len(examples)} agents, {len(failures)} failed; {len(tasks)} tasks, one kill of the server, the audit is clean")
    assert not failures, server.last_words()


main(sys.argv[1:])
