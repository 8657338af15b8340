#!/usr/bin/env bash
# Prints what the Prometheus operator and Grafana's sidecar read, from the files that the other deployments use as they are.
set -euo pipefail
cd "$(dirname "$0")/../observability"

cat <<'YAML'
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: zerostate
  namespace: zerostate
  labels:
    app.kubernetes.io/name: zerostate
spec:
YAML
sed 's/^\(.\)/  \1/' rules.yml

cat <<'YAML'
---
apiVersion: v1
kind: ConfigMap
metadata:
  name: zerostate-dashboards
  namespace: zerostate
  labels:
    app.kubernetes.io/name: zerostate
    grafana_dashboard: "1"
data:
YAML
for dashboard in dashboards/*.json; do
    printf '  %s: |\n' "$(basename "$dashboard")"
    sed 's/^\(.\)/    \1/' "$dashboard"
done
