//! Test hosts out of nothing: N machines on this one, each with its own address, its own sshd, its
//! own folders and processes, and an inventory that names them. To everything that works over ssh
//! they are machines like any other; nothing in the toolkit knows a lab from production.
//!
//! A host is a set of namespaces. Its *net* namespace has a name (`pxl7-n1`) and one cable to the
//! lab's switch; *mount*, *pid* and *uts* namespaces belong to its first process, which is its sshd
//! (`lab/boot.sh`), and end with it. Killing that process is pulling the plug: the kernel kills
//! whatever else runs there. The disk is a folder and stays until the lab is taken down.
//!
//! The switch is a bridge in a net namespace of its own (`pxl7`): rules of the real machine's
//! firewall, which drop bridged packets as soon as Docker is installed, do not reach into it. One
//! cable, the device `pxl7` with the address 10.231.7.1, leads to the real machine.
//!
//! *What exists is what the kernel says.* Nothing is remembered in pid files: a host's processes
//! are those in its net namespace, and a lab is a device whose alias says whose it is. So `up` may
//! be repeated (it switches on what is off), `down` cleans up after an `up` that was killed
//! half-way,
//! and neither can ever hit a process that merely got a former one's number.
//!
//! Two labs with different names live side by side. It needs root, iproute2, util-linux and
//! OpenSSH's server; [`requirements`] says what is missing.

mod files;
mod machine;
mod network;
mod tools;

use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

pub use network::Cut;
pub use tools::{LabError, requirements};

use network::Switch;
use tools::{Attempt, fail};

/// How long a host may take to begin or to end; it takes some tens of milliseconds.
const PATIENCE: Duration = Duration::from_secs(15);
const HOSTS_MAX: usize = 64;

/// What is wanted of a lab.
#[derive(Clone, Debug)]
pub struct Wish {
    /// Up to 31 lower-case letters, digits or `-`, the first a letter. It also names the cluster.
    pub name: String,
    /// Labs have a folder below this one each.
    pub dir: PathBuf,
    pub hosts: usize,
}

/// A lab that has been brought up.
#[derive(Clone, Debug)]
pub struct Lab {
    name: String,
    /// The folder of this lab.
    dir: PathBuf,
    switch: Switch,
    hosts: usize,
}

/// One line of `lab list`.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Summary {
    pub name: String,
    pub dir: PathBuf,
    pub network: String,
    pub hosts: usize,
    pub running: usize,
}

/// What `down` found to remove.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Removed {
    pub hosts: usize,
    pub processes: usize,
    pub network: bool,
    pub folder: bool,
}

impl Lab {
    /// Brings up a lab, or what a lab of this name lacks of it: hosts that are off are switched on,
    /// missing ones are added. What its hosts hold on disk stays.
    pub fn up(wish: &Wish) -> Result<Lab, LabError> {
        requirements()?;
        crate::patterns::cluster_name(&wish.name).map_err(|why| {
            LabError::new(format!("a lab cannot be called {:?}", wish.name)).hint(why)
        })?;
        if !(1..=HOSTS_MAX).contains(&wish.hosts) {
            let message = format!("a lab has 1 to {HOSTS_MAX} hosts, not {}", wish.hosts);
            return Err(LabError::new(message));
        }
        let _turn = files::take_turn(&wish.dir)?;
        let dir = folder(&wish.dir, &wish.name)?;
        let former = files::read_marker(&dir)?;
        if let Some(hosts) = former.as_ref().map(|former| former.hosts).filter(|n| *n > wish.hosts)
        {
            let message = format!("lab {} has {hosts} hosts, more than {}", wish.name, wish.hosts);
            let hint = format!("paxosctl lab down --name {}", wish.name);
            return Err(LabError::new(message).hint(hint));
        }
        let switch = Switch::claim(&wish.name, &dir, former.map(|former| former.index))?;
        let lab = Lab { name: wish.name.clone(), dir, switch, hosts: wish.hosts };
        files::write_marker(&lab)?;
        lab.switch.make()?;
        files::make_operator_key(&lab)?;
        for number in 1..=lab.hosts {
            machine::make(&lab, number)?;
            lab.switch.plug_in(&host_name(number), lab.address(number))?;
        }
        files::write_ssh_files(&lab)?;
        files::write_inventory(&lab)?;
        for number in 1..=lab.hosts {
            machine::switch_on(&lab, number)?;
        }
        for number in 1..=lab.hosts {
            machine::wait_for_sshd(&lab, number)?;
        }
        Ok(lab)
    }

    /// The lab of this name, wherever it was made.
    pub fn open(name: &str) -> Result<Lab, LabError> {
        let owned = network::labs()?;
        let Some(found) = owned.iter().find(|lab| lab.name == name) else {
            let names: Vec<&str> = owned.iter().map(|lab| lab.name.as_str()).collect();
            let hint = match names.as_slice() {
                [] => "paxosctl lab up --hosts 3".to_owned(),
                names => format!("there are: {}", names.join(", ")),
            };
            return Err(LabError::new(format!("there is no lab {name}")).hint(hint));
        };
        let marker = files::read_marker(&found.dir)?.ok_or_else(|| {
            LabError::new(format!("the folder of lab {name}, {}, is gone", found.dir.display()))
                .hint(format!("paxosctl lab down --name {name}"))
        })?;
        let switch = Switch::of(name, &found.dir, found.index);
        Ok(Lab { name: name.to_owned(), dir: found.dir.clone(), switch, hosts: marker.hosts })
    }

    /// Removes every trace of a lab: processes, namespaces, devices, and its folder below `dir` or
    /// wherever it was made. That nothing was there is no error.
    pub fn down(dir: &Path, name: &str) -> Result<Removed, LabError> {
        requirements()?;
        let mut homes = vec![folder(dir, name)?];
        homes
            .extend(network::labs()?.into_iter().filter(|lab| lab.name == name).map(|lab| lab.dir));
        homes.dedup();
        // An `up` of this lab ends before it is taken down.
        let exists = |folder: &&Path| folder.is_dir();
        let places = homes.iter().filter_map(|home| home.parent()).filter(exists);
        let _turns = places.map(files::take_turn).collect::<Result<Vec<_>, _>>()?;
        let lock = network::lock()?;
        network::sweep()?;
        let mut removed = Removed::default();
        for owned in network::labs()?.into_iter().filter(|lab| lab.name == name) {
            let (hosts, processes) = network::remove(owned.index)?;
            removed.hosts += hosts;
            removed.processes += processes;
            removed.network = true;
        }
        drop(lock);
        for home in homes {
            removed.folder |= files::remove(&home, name)?;
        }
        Ok(removed)
    }

    /// Every lab of this machine.
    pub fn list() -> Result<Vec<Summary>, LabError> {
        let mut summaries = Vec::new();
        for owned in network::labs()? {
            let (hosts, running) = network::count_hosts(owned.index)?;
            let network = format!("10.231.{}.0/24", owned.index);
            let Some(dir) = owned.dir.to_str().map(PathBuf::from) else { continue };
            summaries.push(Summary { name: owned.name, dir, network, hosts, running });
        }
        Ok(summaries)
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// The folder of this lab: inventory, keys, and the disks of its hosts.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub fn inventory(&self) -> PathBuf {
        self.dir.join("inventory.toml")
    }

    /// The private key that every host admits for root.
    pub fn identity_file(&self) -> PathBuf {
        self.dir.join("id_ed25519")
    }

    /// The keys of all hosts, as they are: nobody has to trust a first answer.
    pub fn known_hosts(&self) -> PathBuf {
        self.dir.join("known_hosts")
    }

    /// For plain ssh: `ssh -F <this> n1`.
    pub fn ssh_config(&self) -> PathBuf {
        self.dir.join("ssh_config")
    }

    /// `n1`, `n2`, …
    pub fn host_names(&self) -> Vec<String> {
        (1..=self.hosts).map(host_name).collect()
    }

    pub fn address_of(&self, host: &str) -> Result<Ipv4Addr, LabError> {
        Ok(self.address(self.number(host)?))
    }

    /// Runs a shell script as root on a host, by the back door: no ssh, and no network needed.
    pub fn run(&self, host: &str, script: &str) -> Result<Output, LabError> {
        machine::run(self, self.number(host)?, script)
    }

    /// [`Lab::run`], which must succeed; what it wrote to stdout.
    pub fn output(&self, host: &str, script: &str) -> Result<String, LabError> {
        let output = self.run(host, script)?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        Err(LabError::new(format!("{host}: `{script}` failed: {}", output.status)).because(said))
    }

    /// Ids, as the real machine counts, of the processes of a host whose program is called `name`.
    pub fn processes(&self, host: &str, name: &str) -> Result<Vec<i32>, LabError> {
        machine::processes(self, self.number(host)?, name)
    }

    /// `kill -9` of every process of a host whose program is called `name`; how many there were.
    pub fn kill_processes(&self, host: &str, name: &str) -> Result<usize, LabError> {
        let found = self.processes(host, name)?;
        for process in &found {
            tools::kill(*process);
        }
        Ok(found.len())
    }

    /// Drops packets of a host, without a word to the other side, until [`Lab::heal`]. Cutting
    /// again replaces the former cut.
    pub fn cut(&self, host: &str, cut: Cut<'_>) -> Result<(), LabError> {
        let mut peers = Vec::new();
        if let Cut::Peers(names) = cut {
            for name in names {
                peers.push(self.address_of(name)?);
            }
        }
        self.number(host)?;
        self.switch.cut(host, cut, &peers)
    }

    /// Lets all packets of a host pass again; no error when they did.
    pub fn heal(&self, host: &str) -> Result<(), LabError> {
        self.number(host)?;
        self.switch.heal(host)
    }

    /// Pulls the plug of a host: every process is gone at once, the disk stays.
    pub fn switch_off(&self, host: &str) -> Result<(), LabError> {
        self.number(host)?;
        self.switch.kill_all(host).map(|_| ())
    }

    /// Switches a host on again and waits for its sshd; no error when it was on.
    pub fn switch_on(&self, host: &str) -> Result<(), LabError> {
        let number = self.number(host)?;
        machine::switch_on(self, number)?;
        machine::wait_for_sshd(self, number)
    }

    fn number(&self, host: &str) -> Result<usize, LabError> {
        (1..=self.hosts).find(|number| host_name(*number) == host).ok_or_else(|| {
            let hint = format!("its hosts are {}", self.host_names().join(", "));
            LabError::new(format!("lab {} has no host {host}", self.name)).hint(hint)
        })
    }

    fn address(&self, number: usize) -> Ipv4Addr {
        let last = u8::try_from(10 + number).expect("at most 64 hosts");
        Ipv4Addr::new(10, 231, self.switch.index(), last)
    }

    /// The folder of one host.
    fn chassis(&self, number: usize) -> PathBuf {
        self.dir.join("hosts").join(host_name(number))
    }
}

fn host_name(number: usize) -> String {
    format!("n{number}")
}

/// The absolute folder of a lab, which need not exist.
fn folder(dir: &Path, name: &str) -> Result<PathBuf, LabError> {
    let absolute = std::path::absolute(dir).attempt(|| format!("find {}", dir.display()))?;
    // The same folder must have the same name next time, whichever way it is reached.
    let absolute = match fs::canonicalize(&absolute) {
        Ok(canonical) => canonical,
        Err(error) if error.kind() == io::ErrorKind::NotFound => absolute,
        Err(error) => return fail(format!("find {}", dir.display()), error),
    };
    Ok(absolute.join(name))
}
