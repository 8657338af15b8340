#!/usr/bin/env python3
"""Writes the dashboards of Grafana from the one list of panels below; with --check it compares them with what is there."""

import json
import pathlib
import sys

FOLDER = pathlib.Path(__file__).parent / "dashboards"
COLUMNS = 24

# The rate of a counter, by a label of it.
def rate(metric, by="", where=""):
    labels = ",".join(['job="$job"', where] if where else ['job="$job"'])
    total = f"(rate(zerostate_{metric}{{{labels}}}[$__rate_interval]))"
    return f"sum by ({by}) {total}" if by else f"sum{total}"


# A quantile of a histogram.
def quantile(share, metric, by=""):
    inside = f"le, {by}" if by else "le"
    return f'histogram_quantile({share}, sum by ({inside}) (rate(zerostate_{metric}_bucket{{job="$job"}}[$__rate_interval])))'


# A gauge of the market, which every process reports alike.
def market(metric, by=""):
    gauge = f'(zerostate_{metric}{{job="$job"}})'
    return f"max by ({by}) {gauge}" if by else f"max{gauge}"


# A gauge of each process.
def process(metric, by="instance"):
    return f'sum by ({by}) ({metric}{{job="$job"}})'


def panel(title, unit, *queries, kind="timeseries", width=8, says=""):
    return {"title": title, "unit": unit, "queries": queries, "kind": kind, "width": width, "says": says}


# The dashboards: name, title, panels. A query is an expression with the legend of its series.
DASHBOARDS = [
    ("api", "ZeroState: API", [
        panel("Operations", "reqps", (rate("graphql_requests_total", "operation_type"), "{{operation_type}}")),
        panel("Errors", "reqps", (rate("graphql_requests_total", "outcome", 'outcome!="ok"'), "{{outcome}}"),
              says="client_error is wrong with the request, server_error with us."),
        panel("Duration", "s",
              (quantile(0.5, "graphql_request_duration_seconds", "operation_type"), "{{operation_type}} p50"),
              (quantile(0.99, "graphql_request_duration_seconds", "operation_type"), "{{operation_type}} p99")),
        panel("Subscriptions", "short", (process("zerostate_graphql_subscriptions_active"), "{{instance}}")),
        panel("Sockets and event streams", "short", (process("zerostate_sockets_open", "kind"), "{{kind}}")),
        panel("Refused by limits", "reqps", (rate("rate_limited_requests_total", "limit"), "{{limit}}")),
        panel("Events read again by slow subscribers", "eps", (rate("graphql_subscription_lagged_events_total"), "events")),
        panel("Oldest event that is not told", "s", (process("zerostate_outbox_oldest_event_age_seconds"), "{{instance}}")),
        panel("Webhooks: tries", "ops", (rate("webhook_attempts_total", "outcome"), "{{outcome}}")),
    ]),
    ("market", "ZeroState: market", [
        panel("Open auctions", "short", (market("auctions_open"), "auctions"), kind="stat", width=4),
        panel("Tasks running", "short", ('sum(max by (runtime) (zerostate_tasks_running{job="$job"}))', "tasks"),
              kind="stat", width=4),
        panel("In escrow", "credits", (market("escrow_locked_credits"), "credits"), kind="stat", width=4),
        panel("Open channels", "short", (market("payment_channels_active"), "channels"), kind="stat", width=4),
        panel("Success of settled tasks", "percentunit", (market("reputation_success_ratio"), "ratio"), kind="stat", width=4),
        panel("Agents online", "short", (market("agents_online", "runtime"), "{{runtime}}"), kind="stat", width=4),
        panel("Tasks", "ops", (rate("tasks_submitted_total"), "submitted"),
              (rate("tasks_completed_total", "outcome"), "{{outcome}}")),
        panel("Task errors", "ops", (rate("task_errors_total", "reason"), "{{reason}}")),
        panel("Work", "s", (quantile(0.5, "task_duration_seconds", "runtime"), "{{runtime}} p50"),
              (quantile(0.95, "task_duration_seconds", "runtime"), "{{runtime}} p95")),
        panel("Auctions closed", "ops", (rate("auctions_total", "outcome"), "{{outcome}}")),
        panel("Bids", "ops", (rate("auction_bids_total", "outcome"), "{{outcome}}")),
        panel("Time of auctions", "s", (quantile(0.5, "auction_duration_seconds", "outcome"), "{{outcome}} p50")),
        panel("Winning bids", "credits", (quantile(0.5, "auction_winning_bid_credits"), "p50"),
              (quantile(0.95, "auction_winning_bid_credits"), "p95")),
        panel("Price of tasks", "credits", (quantile(0.5, "task_cost_credits", "runtime"), "{{runtime}} p50")),
        panel("Fees per second", "credits", (rate("fees_micro_credits_total") + " / 1e6", "credits")),
        panel("Settlements", "ops", (rate("settlements_total", "outcome"), "{{outcome}}")),
        panel("Disputes", "ops", (rate("settlement_disputes_total", "stage"), "{{stage}}")),
        panel("Result to final funds", "s", (quantile(0.95, "settlement_duration_seconds", "outcome"), "{{outcome}} p95")),
        panel("Escrows", "ops", (rate("escrows_created_total"), "created"), (rate("escrow_releases_total"), "released"),
              (rate("escrow_refunds_total", "reason"), "refunded: {{reason}}")),
        panel("Channels", "ops", (rate("payment_channel_events_total", "event"), "{{event}}")),
        panel("In open channels", "credits", (market("payment_channel_balance_credits", "side"), "{{side}}")),
        panel("Lifetime of channels", "s", (quantile(0.5, "payment_channel_lifetime_seconds", "reason"), "{{reason}} p50")),
        panel("Payments out of streams", "ops", (rate("payments_total", "outcome"), "{{outcome}}")),
        panel("Amount and duration of payments", "short", (rate("payment_amount_credits_sum"), "credits per second"),
              (rate("payment_duration_seconds_sum", "outcome"), "{{outcome}}: seconds per second")),
        panel("Reputation after updates", "short", (quantile(0.5, "reputation_score"), "p50"),
              (quantile(0.1, "reputation_score"), "p10")),
        panel("Reputation updates", "ops", (rate("reputation_updates_total", "cause"), "{{cause}}")),
        panel("Mean of agents", "short", (market("reputation_mean_task_duration_seconds"), "seconds a task"),
              (market("reputation_mean_task_cost_credits"), "credits a task")),
        panel("Work elsewhere", "ops", (rate("work_offers_total"), "offers"),
              (rate("work_claims_total", "result"), "claims: {{result}}"), (rate("work_leases_lost_total"), "leases lost")),
        panel("Delegations", "ops", (rate("delegations_total", "outcome"), "{{outcome}}"),
              (rate("delegation_steps_total", "outcome"), "steps: {{outcome}}")),
        panel("Time of delegations", "s", (rate("delegation_duration_seconds_sum", "outcome"), "{{outcome}}: seconds per second")),
    ]),
    ("process", "ZeroState: process", [
        panel("Processor", "percentunit",
              ('sum by (instance) (rate(process_cpu_seconds_total{job="$job"}[$__rate_interval]))', "{{instance}}")),
        panel("Memory", "bytes", (process("process_resident_memory_bytes"), "{{instance}}")),
        panel("Files", "short", (process("process_open_fds"), "{{instance}}"), (process("process_max_fds"), "{{instance}} limit")),
        panel("Threads", "short", (process("process_threads"), "{{instance}}")),
        panel("Up", "s", ('time() - max by (instance) (process_start_time_seconds{job="$job"})', "{{instance}}")),
        panel("Versions", "short", (process("zerostate_build_info", "version, revision"), "{{version}} {{revision}}")),
        panel("Connections to the database", "short", (process("zerostate_db_pool_connections", "instance, state"), "{{instance}} {{state}}"),
              (process("zerostate_db_pool_connections_limit"), "{{instance}} limit")),
        panel("Work undone by the database", "ops", (rate("db_transaction_retries_total", "instance"), "{{instance}}")),
        panel("Modules asked for", "ops", (rate("sandbox_modules_total", "cache"), "{{cache}}")),
        panel("Oldest deadline that is over", "s", (market("sweep_oldest_due_age_seconds"), "age")),
        panel("Webhooks that wait", "short", (market("webhook_deliveries_pending"), "messages")),
        panel("Oldest webhook that is due", "s", (market("webhook_oldest_due_age_seconds"), "age")),
    ]),
    ("slo", "ZeroState: objectives", [
        panel("Operations that do not fail", "percentunit", ('1 - job:zerostate_graphql_errors:ratio_rate6h{job="$job"}', "6 h"),
              kind="stat", width=6, says="The objective is 99.9 % over 30 days."),
        panel("Answers within half a second", "percentunit", ('1 - job:zerostate_graphql_slow:ratio_rate6h{job="$job"}', "6 h"),
              kind="stat", width=6, says="The objective is 99 % over 30 days."),
        panel("Credits that the books are off by", "credits", (market("ledger_imbalance_credits"), "credits"), kind="stat", width=6),
        panel("Rows that break an invariant", "short",
              ('sum(max by (check) (zerostate_ledger_invariant_violations{job="$job"}))', "rows"), kind="stat", width=6),
        panel("Burn of the error budget", "none", *[
            (f'job:zerostate_graphql_errors:ratio_rate{window}{{job="$job"}} / 0.001', window) for window in ("5m", "30m", "1h", "6h")
        ], width=12, says="At 1 the budget lasts for the month; 14.4 pages, 6 makes a ticket."),
        panel("Burn of the latency budget", "none", *[
            (f'job:zerostate_graphql_slow:ratio_rate{window}{{job="$job"}} / 0.01', window) for window in ("5m", "30m", "1h", "6h")
        ], width=12, says="At 1 the budget lasts for the month; 14.4 pages, 6 makes a ticket."),
        panel("Since the last audit", "s",
              ('time() - max by (instance, reach) (zerostate_ledger_last_audit_timestamp_seconds{job="$job"})', "{{instance}} {{reach}}"),
              width=12),
        panel("Instances", "short", ('sum(up{job="$job"})', "up"), ('count(up{job="$job"})', "known"), width=12),
    ]),
]

SOURCE = {"type": "prometheus", "uid": "${datasource}"}


def variable(name, label, kind, query):
    shared = {"name": name, "label": label, "type": kind, "query": query, "hide": 0, "includeAll": False, "multi": False}
    return shared | ({"datasource": SOURCE, "refresh": 1, "sort": 1} if kind == "query" else {})


def panels(listed):
    made, x, y, row = [], 0, 0, 0
    for number, it in enumerate(listed, 1):
        height = 4 if it["kind"] == "stat" else 8
        if x + it["width"] > COLUMNS:
            x, y, row = 0, y + row, 0
        made.append({
            "id": number,
            "title": it["title"],
            "description": it["says"],
            "type": it["kind"],
            "datasource": SOURCE,
            "gridPos": {"x": x, "y": y, "w": it["width"], "h": height},
            "fieldConfig": {"defaults": {"unit": "short" if it["unit"] == "credits" else it["unit"]}, "overrides": []},
            "options": {},
            "targets": [
                {"refId": chr(ord("A") + place), "datasource": SOURCE, "expr": expression, "legendFormat": legend}
                for place, (expression, legend) in enumerate(it["queries"])
            ],
        })
        x, row = x + it["width"], max(row, height)
    return made


def dashboard(name, title, listed):
    return {
        "uid": f"zerostate-{name}",
        "title": title,
        "tags": ["zerostate"],
        "editable": False,
        "graphTooltip": 1,
        "refresh": "30s",
        "schemaVersion": 39,
        "time": {"from": "now-6h", "to": "now"},
        "timezone": "",
        "templating": {"list": [
            variable("datasource", "Data source", "datasource", "prometheus"),
            variable("job", "Job", "query", "label_values(zerostate_build_info, job)"),
        ]},
        "panels": panels(listed),
    }


def main():
    wrong = []
    for name, title, listed in DASHBOARDS:
        text = json.dumps(dashboard(name, title, listed), indent=2) + "\n"
        path = FOLDER / f"{name}.json"
        if "--check" not in sys.argv:
            path.write_text(text)
        elif not path.exists() or path.read_text() != text:
            wrong.append(path.name)
    if wrong:
        sys.exit(f"{', '.join(wrong)} is not what the list of panels gives; run deploy/observability/dashboards.py")


if __name__ == "__main__":
    main()
