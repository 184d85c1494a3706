//! Hosts in many states, of which none is touched: an inventory of three, a binary, and what is found.

#![allow(dead_code, reason = "each test binary uses its part of it")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use deploy::digest;
use deploy::facts::{Data, Facts, Identity, Process};
use deploy::plan::{self, Plan, Wish};
use deploy::release::Release;
use deploy::render;

pub(crate) const UUID: &str = "00112233445566778899aabbccddeeff";

pub(crate) fn text(plan: &Plan) -> String {
    let mut lines = plan.lines();
    lines.push(plan.summary());
    lines.join("\n")
}

pub(crate) fn refused(world: &World, says: &[&str], hint: &str) {
    let error = world.plan().unwrap_err();
    let said = error.to_string();
    for word in says {
        assert!(said.contains(word), "{word} is not in: {said}");
    }
    assert!(error.hint.as_ref().unwrap().contains(hint), "{error:?}");
}

pub(crate) fn identity(id: u32) -> Identity {
    Identity {
        id,
        cluster_uuid: UUID.to_owned(),
        incarnation: format!("{id:016x}"),
        public_key: format!("{id:064x}"),
        store_version_newest: Some(1),
    }
}

/// An inventory of three, a binary, and what is found on the hosts.
pub(crate) struct World {
    pub(crate) inventory: hosts::Inventory,
    pub(crate) releases: BTreeMap<String, Release>,
    pub(crate) facts: BTreeMap<u32, Facts>,
}

impl World {
    /// Bare hosts.
    pub(crate) fn new() -> World {
        let mut text = "schema = 1\n[cluster]\nname = \"demo\"\n".to_owned();
        for id in 1..=3 {
            text += &format!("[[host]]\nname = \"n{id}\"\nid = {id}\naddress = \"10.0.0.1{id}\"\n");
        }
        let digests = "d".repeat(64);
        text += &format!(
            "[[user]]\nname = \"app\"\nrole = \"rw\"\npassword_sha256 = [\"{digests}\"]\n"
        );
        let folder = Path::new("/tmp");
        let inventory =
            hosts::parse(&text, "demo.toml", folder, hosts::Knowledge::default()).unwrap();
        let release = Release {
            path: PathBuf::from("target/release/paxos-node"),
            digest: "a".repeat(64),
            bytes: 1 << 20,
        };
        let facts = (1..=3)
            .map(|id| (id, Facts { arch: "x86_64".to_owned(), ..Facts::default() }))
            .collect();
        World { inventory, releases: BTreeMap::from([("x86_64".to_owned(), release)]), facts }
    }

    /// The same after `up`.
    pub(crate) fn running() -> World {
        let mut world = World::new();
        for host in &world.inventory.hosts {
            let node_toml = render::node_toml(&world.inventory, host, UUID).unwrap();
            let config = digest::of_bytes(node_toml.as_bytes());
            let facts = world.facts.get_mut(&host.id).unwrap();
            facts.releases = vec!["a".repeat(12)];
            facts.current = Some("a".repeat(12));
            facts.data = Data::Identity(identity(host.id));
            facts.process = Some(Process {
                pid: 100 + host.id,
                start_ticks: 5,
                uptime_seconds: 60,
                digest: "a".repeat(64),
                config: Some(config.clone()),
            });
            let copy = digest::of_bytes(world.inventory.text.as_bytes());
            for (name, digest) in
                [("node.toml", config), ("members.toml", "e".repeat(64)), ("inventory.toml", copy)]
            {
                facts.files.insert(name.to_owned(), digest);
            }
        }
        world
    }

    pub(crate) fn of(&mut self, id: u32) -> &mut Facts {
        self.facts.get_mut(&id).unwrap()
    }

    pub(crate) fn plan(&self) -> deploy::Result<Plan> {
        self.plan_without(&[])
    }

    pub(crate) fn plan_without(&self, skipped: &[u32]) -> deploy::Result<Plan> {
        let (inventory, releases) = (&self.inventory, &self.releases);
        let wish = Wish { inventory, releases, fresh_uuid: UUID, skipped };
        plan::up(&wish, &self.facts)
    }
}
