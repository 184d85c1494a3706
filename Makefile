# Each target is a line or two that calls paxosctl; `make help` lists them.
SERVERS  ?= 3
CLIENTS  ?= 1
CONFIG   ?= default
HOSTS    ?= hosts/inventories/default.toml
SEEDS    ?= 2000
LAB_HOSTS ?= 3
# Names and places, for two of a kind on one machine.
LAB         ?= lab
LAB_DIR     ?= .lab
PROJECT     ?= paxos
PROJECT_DIR ?= .run/compose
MONITOR_DIR ?= .monitor

ARCH   := $(shell uname -m)
TARGET := $(ARCH)-unknown-linux-gnu
BIN    := target/release
CTL    := $(BIN)/paxosctl

.PHONY: help compile clean run soak up gen down kill show ssh_up ssh_down ssh_show test bench sim \
        lab_up lab_down monitor_up monitor_down check mutants model measures fuzz nemesis

help: ## this list
	@sed -n 's/^\([a-z_]*\):.*## \(.*\)/  \1|\2/p' $(MAKEFILE_LIST) | column -t -s '|' 2>/dev/null \
	  || sed -n 's/^\([a-z_]*\):.*## \(.*\)/  \1  \2/p' $(MAKEFILE_LIST)
	@echo 'variables: SERVERS=$(SERVERS) CLIENTS=$(CLIENTS) CONFIG=$(CONFIG) HOSTS=$(HOSTS) DURATION= BASE_PORT= KEEP='

# One static file each: nodes are copied to hosts and into an empty image as they are. The target is
# named so that the flag does not reach procedural macros, which cannot be static.
compile: ## build paxos-node and paxosctl (static, release) into target/release
	@command -v cargo >/dev/null || { echo 'error: cargo is missing; install Rust from https://rustup.rs'; exit 1; }
	@command -v cc >/dev/null || { echo 'error: a C compiler is missing; install it: apt-get install gcc libc6-dev'; exit 1; }
	RUSTFLAGS='-C target-feature=+crt-static' cargo build --locked --release --target $(TARGET) -p node -p ctl
	@mkdir -p $(BIN)
	@for b in paxos-node paxosctl; do cmp -s target/$(TARGET)/release/$$b $(BIN)/$$b || \
	  { cp target/$(TARGET)/release/$$b $(BIN)/$$b.new && mv $(BIN)/$$b.new $(BIN)/$$b; }; done

clean: ## remove everything that was built or run here
	cargo clean
	rm -rf .run .monitor

run: compile ## a live cluster of SERVERS nodes with CLIENTS clients on this machine; DURATION=20s ends it
	@$(CTL) run --servers '$(SERVERS)' --clients '$(CLIENTS)' --config '$(CONFIG)' \
	  $(if $(DURATION),--duration '$(DURATION)') $(if $(KEEP),--keep) $(if $(BASE_PORT),--base-port '$(BASE_PORT)')

# Bounded: it ends by itself, and fails when the leader changed without a reason or the proof does not hold.
soak: compile ## full load of 256 clients for five minutes (DURATION=), in which the leader must not change
	@$(CTL) run --servers '$(SERVERS)' --clients '$(if $(filter-out 1,$(CLIENTS)),$(CLIENTS),256)' --config '$(CONFIG)' \
	  --duration '$(or $(DURATION),5m)' --steady $(if $(BASE_PORT),--base-port '$(BASE_PORT)')

gen: compile ## write the Docker Compose project of SERVERS nodes and CLIENTS clients to .run/compose
	@$(CTL) gen compose --servers '$(SERVERS)' --clients '$(CLIENTS)' --config '$(CONFIG)' --out '$(PROJECT_DIR)' \
	  $(if $(BASE_PORT),--base-port '$(BASE_PORT)') $(if $(NETWORK),--network '$(NETWORK)')

# Compose v2 is a docker plugin, Debian's 1.29 a program of its own.
COMPOSE = $$(docker compose version >/dev/null 2>&1 && echo 'docker compose' || echo docker-compose) \
          -p '$(PROJECT)' --project-directory '$(PROJECT_DIR)' -f '$(PROJECT_DIR)/docker-compose.yml'
NO_PROJECT = { [ ! -e '$(PROJECT_DIR)/docker-compose.yml' ] && echo 'no containers here: make up'; }

up: gen ## the same in a Docker network, one container a node and a client
	@$(COMPOSE) up -d --build

down: ## stop and remove the containers of `make up`
	@$(NO_PROJECT) || { $(COMPOSE) down --timeout 20 --rmi all --remove-orphans && rm -rf '$(PROJECT_DIR)'; }

kill: ## the same at once, with SIGKILL
	@$(NO_PROJECT) || { $(COMPOSE) kill; $(COMPOSE) down --timeout 0 --rmi all --remove-orphans && rm -rf '$(PROJECT_DIR)'; }

show: ## list the containers of `make up`
	@$(NO_PROJECT) || $(COMPOSE) ps

ssh_up: compile ## put the cluster of HOSTS=inventory.toml on its hosts and start it
	@$(CTL) -i '$(HOSTS)' up --yes

ssh_down: compile ## stop the cluster of HOSTS
	@$(CTL) -i '$(HOSTS)' down --yes

ssh_show: compile ## what runs where in HOSTS, and how healthy it is
	@$(CTL) -i '$(HOSTS)' show && $(CTL) -i '$(HOSTS)' status

lab_up: compile ## LAB_HOSTS throw-away test hosts with their own sshd on this machine (root)
	@$(CTL) lab up --hosts '$(LAB_HOSTS)' --name '$(LAB)' --dir '$(LAB_DIR)'

lab_down: compile ## remove them without a trace
	@$(CTL) lab down --name '$(LAB)' --dir '$(LAB_DIR)'

MONITOR = --dir '$(MONITOR_DIR)' $(if $(PROMETHEUS_PORT),--prometheus-port '$(PROMETHEUS_PORT)') \
          $(if $(GRAFANA_PORT),--grafana-port '$(GRAFANA_PORT)')

monitor_up: compile ## Prometheus (and Grafana where installed) for HOSTS on this machine
	@$(CTL) -i '$(HOSTS)' monitor up $(MONITOR)

monitor_down: compile ## stop them
	@$(CTL) -i '$(HOSTS)' monitor down $(MONITOR)

bench: compile ## writes and reads per second against etcd in the same run
	@$(CTL) bench $(if $(DURATION),--duration '$(DURATION)') $(if $(ONLY),--only '$(ONLY)') \
	  $(if $(BASE_PORT),--base-port '$(BASE_PORT)' --dir '.run/bench-$(BASE_PORT)')

# One after the other: each wants the machine for itself. Root, for the packets that are dropped.
measures: ## KEYS keys (default 1000000): snapshots, join, restart; ROUNDS of fail-over and of hand-over
	KEYS=$(or $(KEYS),1000000) cargo test --locked --release -p ctl --test measures -- --nocapture --test-threads=1
	FAILOVER_KILLS=$(or $(ROUNDS),50) FAILOVER_DROPS=$(or $(ROUNDS),50) HANDOVERS=$(or $(ROUNDS),50) cargo test --locked --release -p ctl \
	  --test failover --test failover_dropped --test handover -- --nocapture --test-threads=1

# PROFILE=sim builds longer and runs faster: for tens of thousands of seeds.
sim: ## SEEDS simulated lives of the protocol, and of whole nodes (FROM=n: from that one), on all cores
	SEEDS=$(SEEDS) cargo test --locked $(if $(PROFILE),--profile '$(PROFILE)') -p paxos --test simulator -- --nocapture seeds
	SEEDS=$(SEEDS) cargo test --locked $(if $(PROFILE),--profile '$(PROFILE)') -p node --test simulator -- --nocapture seeds

model: ## each model of the protocol to exhaustion or its bound; STATES=n states of each (0: all), ONLY=part of its name
	STATES=$(or $(STATES),full) cargo test --locked -p paxos --test model -- --nocapture --test-threads=1

mutants: ## break the protocol's rules one by one and show what catches each
	cargo test --locked -p paxos --features mutants --test mutants --test handover --test deposed -- --nocapture

nemesis: ## SECONDS of every fault at real nodes (root); BROKEN=AdoptNothing: at nodes that break this rule, to be found out
	@.ci/nemesis '$(or $(SECONDS),75)' '$(BROKEN)'

fuzz: ## SECONDS of fuzzing at TARGET=resp, wire, journal, snapshot, inventory, … (needs cargo-fuzz)
	@.ci/fuzz '$(if $(filter command line,$(origin TARGET)),$(TARGET))' '$(or $(SECONDS),60)'

check: ## format, lints, docs
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS='-D warnings' cargo doc --locked --workspace --no-deps --quiet

# Output is shown for tests that pass too: figures, and what was skipped and why. What was skipped is
# listed once more at the end; with PAXOS_REQUIRE=all that is a failure.
test: compile check ## everything: check, then all tests
	@.ci/skips cargo test --locked --workspace --quiet -- --show-output
	cargo test --locked --quiet -p paxos --features mutants --test mutants --test handover --test deposed
