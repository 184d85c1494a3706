//! What a lab leaves for its operator: inventory, keys, known hosts, a configuration for ssh; and
//! the marker that says that a folder is a lab's and may be removed with it.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::machine::make_key;
use super::tools::{Attempt, LabError, fail};
use super::{Lab, host_name};

const MARKER: &str = "lab.json";

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Marker {
    pub(super) name: String,
    pub(super) index: u8,
    pub(super) hosts: usize,
}

/// Waits for whoever works on a lab in this folder of labs, and keeps others waiting until the
/// answer is dropped, or its process ends. The folder is made if need be.
pub(super) fn take_turn(labs: &Path) -> Result<fs::File, LabError> {
    let doing = || format!("take a turn in {}", labs.display());
    loop {
        fs::create_dir_all(labs).attempt(doing)?;
        let turn = fs::File::open(labs).attempt(doing)?;
        turn.lock().attempt(doing)?;
        // Whoever was before us may have removed the folder, and others have made it again.
        let now = fs::metadata(labs).ok().map(|folder| (folder.dev(), folder.ino()));
        let ours = turn.metadata().attempt(doing)?;
        if now == Some((ours.dev(), ours.ino())) {
            return Ok(turn);
        }
    }
}

/// `None` when the folder is no lab's.
pub(super) fn read_marker(dir: &Path) -> Result<Option<Marker>, LabError> {
    let path = dir.join(MARKER);
    match fs::read(&path) {
        Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => fail(format!("read {}", path.display()), error),
    }
}

/// Written before anything else, so that whatever follows can be found again. Keys live here: the
/// folder is for its owner only.
pub(super) fn write_marker(lab: &Lab) -> Result<(), LabError> {
    let doing = || format!("make {}", lab.dir.display());
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&lab.dir).attempt(doing)?;
    let marker = Marker { name: lab.name.clone(), index: lab.switch.index(), hosts: lab.hosts };
    let text = serde_json::to_string(&marker).expect("plain fields");
    replace(&lab.dir.join(MARKER), &(text + "\n"))
}

pub(super) fn make_operator_key(lab: &Lab) -> Result<(), LabError> {
    make_key(&lab.identity_file(), &format!("lab {}", lab.name))
}

/// Known hosts and ssh_config, as the hosts are now.
pub(super) fn write_ssh_files(lab: &Lab) -> Result<(), LabError> {
    let mut known_hosts = String::new();
    let mut ssh_config = format!(
        "Host *\n    User root\n    IdentityFile \"{}\"\n    IdentitiesOnly yes\n    \
         UserKnownHostsFile \"{}\"\n    StrictHostKeyChecking yes\n",
        lab.identity_file().display(),
        lab.known_hosts().display()
    );
    for number in 1..=lab.hosts {
        let address = lab.address(number);
        let path = lab.chassis(number).join("etc/ssh_host_ed25519_key.pub");
        let key = fs::read_to_string(&path).attempt(|| format!("read {}", path.display()))?;
        let key: Vec<&str> = key.split_whitespace().take(2).collect();
        let _ = writeln!(known_hosts, "{address} {}", key.join(" "));
        let name = host_name(number);
        let _ = write!(ssh_config, "Host {name}\n    HostName {address}\n");
    }
    replace(&lab.known_hosts(), &known_hosts)?;
    replace(&lab.ssh_config(), &ssh_config)
}

/// The inventory. One that is there is the operator's, who may have added users to it: it keeps
/// its text, gets the hosts that are new, and follows the lab to another network.
pub(super) fn write_inventory(lab: &Lab) -> Result<(), LabError> {
    let path = lab.inventory();
    let mut text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => head_of_inventory(lab),
        Err(error) => return fail(format!("read {}", path.display()), error),
    };
    text = in_network(&text, lab.switch.index());
    for number in 1..=lab.hosts {
        let address = lab.address(number);
        if !text.contains(&format!("\"{address}\"")) {
            let name = host_name(number);
            let _ = write!(
                text,
                "\n[[host]]\nname = \"{name}\"\nid = {number}\naddress = \"{address}\"\n"
            );
        }
    }
    replace(&path, &text)
}

/// The text with every quoted address of a lab's network in this one. (The number of a lab changes
/// when somebody else has taken its network while the machine was off.)
fn in_network(text: &str, index: u8) -> String {
    const LABS: &str = "\"10.231.";
    let mut parts = text.split(LABS);
    let mut moved = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let rest = part.trim_start_matches(|digit: char| digit.is_ascii_digit());
        let _ = write!(moved, "{LABS}{index}{rest}");
    }
    moved
}

/// Everything but the hosts.
fn head_of_inventory(lab: &Lab) -> String {
    format!(
        "# The hosts of lab {name}: namespaces of this machine, gone with `paxosctl lab down --name {name}`.\n\
         schema = 1\n\n\
         [cluster]\nname = \"{name}\"\nconfig = \"default\"\n\n\
         [defaults.ssh]\nuser = \"root\"\nidentity_file = \"id_ed25519\"\n\
         known_hosts = \"known_hosts\"\n\n\
         # Only this machine reaches these hosts. For passwords: clients = \"auth\", then\n\
         # `paxosctl user add app`.\n\
         [security]\npeers = \"tls\"\nclients = \"open\"\n\
         # This machine, so that a Prometheus here reads their pages.\n\
         scrape_from = [\"10.231.{index}.1/32\"]\n",
        name = lab.name,
        index = lab.switch.index()
    )
}

/// Removes a lab's folder, and the folder of labs when it was the last one. A folder without the
/// marker of this lab is left alone.
pub(super) fn remove(dir: &Path, name: &str) -> Result<bool, LabError> {
    if read_marker(dir)?.is_none_or(|marker| marker.name != name) {
        // A killed `up` may have left an empty one, which is nobody's loss.
        return Ok(fs::remove_dir(dir).is_ok());
    }
    let doing = || format!("remove {}", dir.display());
    // The marker goes last: a removal that is interrupted can be repeated.
    for entry in fs::read_dir(dir).attempt(doing)? {
        let path = entry.attempt(doing)?.path();
        if path.ends_with(MARKER) {
            continue;
        }
        if path.is_dir() && !path.is_symlink() {
            fs::remove_dir_all(&path).attempt(doing)?;
        } else {
            fs::remove_file(&path).attempt(doing)?;
        }
    }
    fs::remove_file(dir.join(MARKER)).attempt(doing)?;
    fs::remove_dir(dir).attempt(doing)?;
    if let Some(labs) = dir.parent().filter(|labs| labs.file_name() == Some(".lab".as_ref())) {
        // With other labs in it, it stays.
        let _ = fs::remove_dir(labs);
    }
    Ok(true)
}

/// All of the new text or all of the old one, whatever happens.
fn replace(path: &Path, text: &str) -> Result<(), LabError> {
    let doing = || format!("write {}", path.display());
    let partial = path.with_extension("partial");
    fs::write(&partial, text).attempt(doing)?;
    fs::rename(&partial, path).attempt(doing)
}
