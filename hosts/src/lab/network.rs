//! The switch of a lab, the cables to its hosts, and scissors.

use std::collections::BTreeSet;
use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::PATIENCE;
use super::tools::{Attempt, LabError, call, call_with, kill, processes_in};

/// The alias of a lab's device begins with this; then its name and its folder.
const ALIAS: &str = "paxos lab";
/// Its own table, so that no rule that somebody else put into a host is touched.
const TABLE: &str = "inet paxos_lab_cut";
/// How often a number is tried to be taken, and how long a tool without its caller may linger.
const ATTEMPTS: usize = 3;
const LINGERING: Duration = Duration::from_millis(50);

/// Which packets a host loses, both ways.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut<'a> {
    /// All of them.
    Everything,
    /// All but ssh, so that the operator's tools still get there.
    EverythingButSsh,
    /// Those from and to these hosts.
    Peers(&'a [&'a str]),
}

/// The switch of one lab. Its number makes its names and its addresses.
#[derive(Clone, Debug)]
pub(super) struct Switch {
    index: u8,
    alias: String,
}

/// A lab as the kernel knows it.
pub(super) struct Owned {
    pub(super) index: u8,
    pub(super) name: String,
    pub(super) dir: PathBuf,
}

impl Switch {
    pub(super) fn of(name: &str, dir: &Path, index: u8) -> Switch {
        Switch { index, alias: format!("{ALIAS} {name} {}", dir.display()) }
    }

    /// Takes a number that nobody uses, and makes the device that says so. A lab that has one keeps
    /// it. One such step at a time on this machine.
    pub(super) fn claim(name: &str, dir: &Path, former: Option<u8>) -> Result<Switch, LabError> {
        let _lock = lock()?;
        sweep()?;
        let labs = labs()?;
        if let Some(own) = labs.iter().find(|lab| lab.name == name) {
            if own.dir != dir {
                let message = format!("a lab {name} exists already, in {}", own.dir.display());
                return Err(LabError::new(message)
                    .hint(format!("another --name, or: paxosctl lab down --name {name}")));
            }
            return Ok(Switch::of(name, dir, own.index));
        }
        let taken = taken_networks()?;
        let first = former.unwrap_or(1);
        let free = (first..=254).chain(1..first).find(|index| !taken.contains(index));
        let Some(index) = free else {
            return Err(LabError::new(
                "every network from 10.231.1.0/24 to 10.231.254.0/24 is taken",
            )
            .hint("paxosctl lab list"));
        };
        let switch = Switch::of(name, dir, index);
        // The tool that a killed `up` had called outlives it for a moment, and may just have made
        // what is made here. Whatever it was, nobody owns it: away with it, and once more.
        for _ in 1..ATTEMPTS {
            if switch.take_number().is_ok() {
                return Ok(switch);
            }
            std::thread::sleep(LINGERING);
            remove(index)?;
        }
        switch.take_number()?;
        Ok(switch)
    }

    /// The namespace, the cable, and last the alias that says whose they are.
    fn take_number(&self) -> Result<(), LabError> {
        let (namespace, device) = (self.namespace(), self.namespace());
        call("ip", &["netns", "add", &namespace])?;
        let cable = ["link", "add", &device, "type", "veth", "peer", "name", "uplink"];
        call("ip", &[&cable[..], &["netns", &namespace]].concat())?;
        call("ip", &["link", "set", "dev", &device, "alias", &self.alias])?;
        Ok(())
    }

    pub(super) fn index(&self) -> u8 {
        self.index
    }

    /// The switch's net namespace, and the device that leads to it.
    fn namespace(&self) -> String {
        format!("pxl{}", self.index)
    }

    pub(super) fn namespace_of(&self, host: &str) -> String {
        format!("pxl{}-{host}", self.index)
    }

    /// The bridge and the cable to the real machine; again and again.
    pub(super) fn make(&self) -> Result<(), LabError> {
        let namespace = self.namespace();
        let inside = |arguments: &[&str]| call("ip", &[&["-n", &namespace], arguments].concat());
        if inside(&["link", "show", "dev", "switch"]).is_err() {
            inside(&["link", "add", "switch", "type", "bridge"])?;
        }
        inside(&["link", "set", "dev", "uplink", "master", "switch", "up"])?;
        inside(&["link", "set", "dev", "switch", "up"])?;
        let address = format!("10.231.{}.1/24", self.index);
        call("ip", &["address", "replace", &address, "dev", &namespace])?;
        call("ip", &["link", "set", "dev", &namespace, "up"])?;
        Ok(())
    }

    /// A host's net namespace and its cable to the switch; again and again.
    pub(super) fn plug_in(&self, host: &str, address: Ipv4Addr) -> Result<(), LabError> {
        let (switch, namespace) = (self.namespace(), self.namespace_of(host));
        if !exists(&namespace) {
            call("ip", &["netns", "add", &namespace])?;
        }
        let inside = |arguments: &[&str]| call("ip", &[&["-n", &namespace], arguments].concat());
        if inside(&["link", "show", "dev", "eth0"]).is_err() {
            let cable = ["link", "add", "eth0", "type", "veth", "peer", "name", host];
            inside(&[&cable[..], &["netns", &switch]].concat())?;
        }
        call("ip", &["-n", &switch, "link", "set", "dev", host, "master", "switch", "up"])?;
        inside(&["address", "replace", &format!("{address}/24"), "dev", "eth0"])?;
        inside(&["link", "set", "dev", "eth0", "up"])?;
        inside(&["link", "set", "dev", "lo", "up"])?;
        Ok(())
    }

    pub(super) fn cut(&self, host: &str, cut: Cut<'_>, peers: &[Ipv4Addr]) -> Result<(), LabError> {
        // `own` is the near end of a connection in that direction, `peer` the far end.
        let rules_for = |own: &str, peer: &str| match cut {
            Cut::Everything => "drop".to_owned(),
            Cut::EverythingButSsh => format!("tcp {own} 22 accept\ndrop"),
            Cut::Peers(_) => {
                let addresses: Vec<String> = peers.iter().map(Ipv4Addr::to_string).collect();
                format!("ip {peer} {{ {} }} drop", addresses.join(", "))
            }
        };
        let rules = format!(
            "table {TABLE} {{}}\ndelete table {TABLE}\ntable {TABLE} {{\n\
             chain input {{\ntype filter hook input priority -200\niif lo accept\n{}\n}}\n\
             chain output {{\ntype filter hook output priority -200\noif lo accept\n{}\n}}\n}}\n",
            rules_for("dport", "saddr"),
            rules_for("sport", "daddr"),
        );
        self.nft(host, &rules)
    }

    pub(super) fn heal(&self, host: &str) -> Result<(), LabError> {
        self.nft(host, &format!("table {TABLE} {{}}\ndelete table {TABLE}\n"))
    }

    fn nft(&self, host: &str, rules: &str) -> Result<(), LabError> {
        let namespace = self.namespace_of(host);
        call_with("ip", &["netns", "exec", &namespace, "nft", "-f", "-"], rules)
            .map(|_| ())
            .map_err(|error| error.hint("cutting needs nftables: apt-get install nftables"))
    }

    /// Ends every process of a host, and waits until they are gone; how many there were.
    pub(super) fn kill_all(&self, host: &str) -> Result<usize, LabError> {
        kill_all(&self.namespace_of(host))
    }
}

/// Every lab of this machine, by the alias of its device.
pub(super) fn labs() -> Result<Vec<Owned>, LabError> {
    let devices = fs::read_dir("/sys/class/net").attempt(|| "read /sys/class/net".to_owned())?;
    let mut labs = Vec::new();
    for device in devices.flatten() {
        let name = device.file_name();
        let Some(index) = name.to_str().and_then(index_of) else { continue };
        let alias = fs::read_to_string(device.path().join("ifalias")).unwrap_or_default();
        let Some(rest) = alias.trim_end().strip_prefix(ALIAS) else { continue };
        if let Some((name, dir)) = rest.trim_start().split_once(' ') {
            labs.push(Owned { index, name: name.to_owned(), dir: PathBuf::from(dir) });
        }
    }
    labs.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(labs)
}

/// One `up` or `down` at a time may take or give back numbers. The lock is on a folder that every
/// machine has, so that it leaves no trace, and it ends with its holder.
pub(super) fn lock() -> Result<fs::File, LabError> {
    let lock = fs::File::open("/run").attempt(|| "open /run".to_owned())?;
    lock.lock().attempt(|| "wait for another `lab up` or `lab down`".to_owned())?;
    Ok(lock)
}

/// Removes what bears our names but has no owner: an `up` or `down` was killed in between. To be
/// called under the lock, when nobody else is in between.
pub(super) fn sweep() -> Result<(), LabError> {
    let owned: Vec<u8> = labs()?.iter().map(|lab| lab.index).collect();
    for index in numbers_in_use()?.into_iter().filter(|index| !owned.contains(index)) {
        remove(index)?;
    }
    Ok(())
}

/// The numbers of all namespaces that bear our names.
fn numbers_in_use() -> Result<BTreeSet<u8>, LabError> {
    let entries = match fs::read_dir("/run/netns") {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
        Err(error) => return Err(LabError::new("read /run/netns").because(error)),
    };
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    Ok(names.filter_map(|name| index_of(name.split('-').next()?)).collect())
}

/// How many hosts a lab has, and how many of them are on.
pub(super) fn count_hosts(index: u8) -> Result<(usize, usize), LabError> {
    let hosts = host_namespaces(index)?;
    let running = hosts.iter().filter(|host| !processes_in(host).is_empty()).count();
    Ok((hosts.len(), running))
}

/// Removes all that bears this number: processes, namespaces, device. How many hosts and processes
/// that was.
pub(super) fn remove(index: u8) -> Result<(usize, usize), LabError> {
    let hosts = host_namespaces(index)?;
    let mut processes = 0;
    for host in &hosts {
        processes += kill_all(host)?;
        call("ip", &["netns", "delete", host])?;
    }
    let switch = format!("pxl{index}");
    // The device goes by command, not with the namespace of its other end: that would take the
    // kernel some time, and the next `up` would find half of it. It goes after the hosts, because
    // its alias is what says whose they are.
    if Path::new("/sys/class/net").join(&switch).exists() {
        call("ip", &["link", "delete", "dev", &switch])?;
    }
    if exists(&switch) {
        kill_all(&switch)?;
        call("ip", &["netns", "delete", &switch])?;
    }
    Ok((hosts.len(), processes))
}

fn kill_all(namespace: &str) -> Result<usize, LabError> {
    let deadline = Instant::now() + PATIENCE;
    let first = processes_in(namespace);
    let mut alive = first.clone();
    while !alive.is_empty() {
        if Instant::now() > deadline {
            return Err(LabError::new(format!("processes {alive:?} in {namespace} do not end"))
                .hint("they may hang in a disk access; try again when it is over"));
        }
        alive.into_iter().for_each(kill);
        std::thread::sleep(Duration::from_millis(5));
        alive = processes_in(namespace);
    }
    Ok(first.len())
}

fn host_namespaces(index: u8) -> Result<Vec<String>, LabError> {
    let prefix = format!("pxl{index}-");
    let Ok(entries) = fs::read_dir("/run/netns") else { return Ok(Vec::new()) };
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    Ok(names.filter(|name| name.starts_with(&prefix)).collect())
}

fn exists(namespace: &str) -> bool {
    Path::new("/run/netns").join(namespace).exists()
}

fn index_of(device: &str) -> Option<u8> {
    device.strip_prefix("pxl")?.parse().ok()
}

/// The third bytes of 10.231.x.y that an address, a route or a device of this machine uses.
fn taken_networks() -> Result<Vec<u8>, LabError> {
    let mut taken = Vec::new();
    let addresses = call("ip", &["-o", "-4", "address", "show"])?;
    let routes = call("ip", &["-o", "-4", "route", "show", "table", "all"])?;
    for word in addresses.split_whitespace().chain(routes.split_whitespace()) {
        let Some(rest) = word.strip_prefix("10.231.") else { continue };
        taken.extend(rest.split('.').next().and_then(|byte| byte.parse::<u8>().ok()));
    }
    let devices = fs::read_dir("/sys/class/net").attempt(|| "read /sys/class/net".to_owned())?;
    let names = devices.flatten().filter_map(|device| device.file_name().into_string().ok());
    taken.extend(names.filter_map(|name| index_of(&name)));
    Ok(taken)
}
