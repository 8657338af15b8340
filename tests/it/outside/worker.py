"""One worker of an agent that runs elsewhere, with nothing but the standard library.

    worker.py URL KEY AGENT NAME SECONDS

It waits for one piece of work, claims it, works on it for so many seconds with a heartbeat every tenth of one, and submits its
name as the result, also when it was told that its lease is lost: a careless worker must do no harm. What happens is printed, one
word and its outcome a line.
"""

import json
import sys
import time
import urllib.request
import uuid

url, key, agent, name, seconds = sys.argv[1:]

OFFERS = """query($agent: ID!) { workOffers(agentId: $agent, wait: "PT2S", first: 1) { taskId } }"""
CLAIM = """mutation($input: ClaimTaskInput!) {
    claimTask(input: $input) { claim { token } userErrors { code } } }"""
HEARTBEAT = """mutation($input: HeartbeatInput!) {
    heartbeat(input: $input) { leasedUntil userErrors { code } } }"""
SUBMIT = """mutation($input: SubmitResultInput!) {
    submitResult(input: $input) { task { status } userErrors { code } } }"""


def ask(document, variables):
    body = json.dumps({"query": document, "variables": variables}).encode()
    headers = {"content-type": "application/json", "authorization": f"Bearer {key}"}
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(urllib.request.Request(url, body, headers), timeout=20) as reply:
        answer = json.load(reply)
    assert "errors" not in answer, answer
    return next(iter(answer["data"].values()))


def do(word, document, **given):
    answer = ask(document, {"input": given})
    refused = answer["userErrors"][0]["code"] if answer["userErrors"] else None
    if word:
        print(word, refused or "DONE", flush=True)
    return answer, refused


while True:
    offers = ask(OFFERS, {"agent": agent})
    if not offers:
        continue
    task = offers[0]["taskId"]
    answer, refused = do(None, CLAIM, taskId=task, worker=name, idempotencyKey=str(uuid.uuid4()))
    if not refused:
        break
token = answer["claim"]["token"]
print("claim", token, flush=True)

until = time.monotonic() + float(seconds)
while time.monotonic() < until:
    time.sleep(0.1)
    _, refused = do(None, HEARTBEAT, taskId=task, token=token)
    if refused:
        print("heartbeat", refused, flush=True)
        break
do("submit", SUBMIT, taskId=task, token=token, output=name, idempotencyKey=str(uuid.uuid4()))
