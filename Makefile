# The habits. `make` alone lists them.

.DEFAULT_GOAL := help
# Cycles of `make crash`.
CYCLES ?= 200
# Tasks of `make load`, and the build that serves them.
TASKS ?= 1000
PROFILE ?= release

.PHONY: help run test crash failover conformance examples load lint fmt bench web browser observability docs book

help:
	@echo 'make run    a market with sample agents on this computer'
	@echo 'make test   every test, on SQLite and on PostgreSQL, and the conformance checks'
	@echo 'make crash  200 kills of the service under load on SQLite, then 50 on PostgreSQL; CYCLES=n for others'
	@echo 'make failover'
	@echo '            a PostgreSQL that dies, is replaced and ends sessions, under load'
	@echo 'make conformance'
	@echo '            audits and third-party clients against a running server'
	@echo 'make examples'
	@echo '            the example agents against a server that is killed in the middle'
	@echo 'make observability'
	@echo '            a Prometheus over the demonstration: every rule and every panel has to find something'
	@echo 'make load   1,000 tasks over 50 hosted and 3 outside agents at once, with time and memory; TASKS=n for'
	@echo '            others, PROFILE=debug to spare the release build'
	@echo 'make docs   every command and request that the documents show, executed'
	@echo 'make book   the documents as a book, in target/book; installs mdbook at the first time'
	@echo 'make lint   formatting and lints, as strict as they get'
	@echo 'make fmt    format the sources'
	@echo 'make bench  speed against the database itself and against other GraphQL servers, in half an hour; bench-smoke in'
	@echo '            minutes over little data, bench-rust for the benchmarks in Rust'
	@echo 'make web    build the console and GraphiQL; needs Node.js 20.19 or newer'
	@echo 'make browser'
	@echo '            the pages in headless Chromium, with every other host blocked'
	@echo 'make deploy the deployments, compared with one another and with the program'
	@echo 'make newer  the stories on the schema that a next release may have'
	@echo 'make image  what the image holds, built without Docker and tried in an empty place; needs root'
	@echo 'make audit  what we depend on: licences, sources, known weaknesses'
	@echo 'make sbom   bills of materials and licence texts, in target/sbom'

run:
	@bash tests/tools.sh
	@bash web/build.sh --if-possible
	cargo run -- demo

test:
	@bash tests/all.sh

crash:
	CRASH_CYCLES=$(CYCLES) cargo test --test it crash:: -- --nocapture
	CRASH_CYCLES=$$(($(CYCLES) / 4)) bash tests/postgres.sh cargo test --test it crash:: -- --nocapture

failover:
	bash tests/postgres.sh cargo test --test it faults::failover -- --nocapture --test-threads 1

conformance:
	@bash tests/conformance/run.sh

examples:
	@bash tests/examples/run.sh

observability:
	@bash tests/observability/run.sh

load:
	@PROFILE=$(PROFILE) bash tests/load/run.sh $(TASKS)

lint:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- --deny warnings

fmt:
	cargo fmt --all

.PHONY: bench-smoke bench-rust
bench:
	@bash benches/load/run.sh

bench-smoke:
	@bash benches/load/run.sh smoke

bench-rust:
	cargo bench --workspace

web:
	@bash web/build.sh

browser:
	@bash tests/browser/run.sh

.PHONY: deploy newer image audit sbom
deploy:
	@bash tests/deploy/run.sh

newer:
	ZEROSTATE_TEST_NEWER=1 cargo test --test it -- --skip migration:: --skip upgrade:: --skip release:: --skip crash:: --skip faults::
	ZEROSTATE_TEST_NEWER=1 bash tests/postgres.sh cargo test --test it -- --skip migration:: --skip upgrade:: --skip release:: --skip crash:: --skip faults::

image:
	@bash deploy/image.sh

audit:
	@bash deploy/audit.sh

sbom:
	@bash tests/deploy/install.sh
	tests/deploy/.venv/bin/python deploy/sbom.py target/sbom
	bash deploy/licenses.sh >target/sbom/THIRD-PARTY.txt

docs:
	@bash tests/docs/run.sh

book:
	@[ -x target/tools/bin/mdbook ] || cargo install mdbook@0.5.4 --locked --no-default-features --root target/tools --target-dir target/tools/build
	@rm -rf target/tools/build
	target/tools/bin/mdbook build docs
