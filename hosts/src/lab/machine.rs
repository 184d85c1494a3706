//! One host: its disk, its first process, and what runs on it.

use std::fs;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use super::tools::{Attempt, LabError, call, find, processes_in, tool};
use super::{Lab, PATIENCE, host_name};

const BOOT: &str = include_str!("../../lab/boot.sh");
const SSHD_CONFIG: &str = include_str!("../../lab/sshd_config");

/// A host that has no process after this long did not start, or has ended.
const BIRTH: Duration = Duration::from_secs(2);

/// What a host keeps for itself, and the mode of each folder.
const DISK: [(&str, u32); 7] = [
    ("opt", 0o755),
    ("home", 0o755),
    ("root", 0o700),
    ("tmp", 0o1777),
    ("var/lib", 0o755),
    ("var/log", 0o755),
    ("var/tmp", 0o1777),
];

/// The chassis of a host: disk, keys and configuration. What is there stays as it is.
pub(super) fn make(lab: &Lab, number: usize) -> Result<(), LabError> {
    let chassis = lab.chassis(number);
    let name = host_name(number);
    for (folder, mode) in DISK {
        make_folder(&chassis.join("disk").join(folder), mode)?;
    }
    let etc = chassis.join("etc");
    make_folder(&etc, 0o755)?;
    make_folder(&chassis.join("disk/root/.ssh"), 0o700)?;
    let key = etc.join("ssh_host_ed25519_key");
    make_key(&key, &name)?;
    let operator = lab.identity_file().with_extension("pub");
    let authorized = chassis.join("disk/root/.ssh/authorized_keys");
    fs::copy(&operator, &authorized).attempt(|| format!("write {}", authorized.display()))?;
    write(&etc.join("sshd_config"), SSHD_CONFIG)?;
    write(&etc.join("hostname"), &format!("{name}\n"))?;
    write(&etc.join("hosts"), &hosts_file(lab))?;
    // Nobody logs in by password, and the real machine's hashes are nobody's business.
    write(&etc.join("shadow"), "root:*:20000:0:99999:7:::\n")?;
    write(&etc.join("machine-id"), &format!("{}\n", machine_id(&key.with_extension("pub"))?))?;
    write(&chassis.join("boot.sh"), BOOT)
}

/// Starts the first process of a host unless it runs. It belongs to nobody afterwards: neither a
/// Ctrl-C nor the end of this process reaches it.
pub(super) fn switch_on(lab: &Lab, number: usize) -> Result<(), LabError> {
    let name = host_name(number);
    let namespace = lab.switch.namespace_of(&name);
    if first_process(&namespace).is_some() {
        return Ok(());
    }
    // What a killed `up` left without its first process would hold the ports.
    lab.switch.kill_all(&name)?;
    let chassis = lab.chassis(number);
    let trace = chassis.join("console.log");
    let log = fs::File::create(&trace).attempt(|| format!("create {}", trace.display()))?;
    let errors = log.try_clone().attempt(|| format!("open {}", trace.display()))?;
    let sshd = find("sshd").expect("required before");
    let status = tool("setsid")
        .args(["--fork", "ip", "netns", "exec", &namespace])
        .args(["unshare", "--mount", "--uts", "--pid", "--fork", "--kill-child", "/bin/sh"])
        .arg(chassis.join("boot.sh"))
        .arg(&chassis)
        .arg(&name)
        .arg(sshd)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(errors)
        .status()
        .attempt(|| format!("start host {name}"))?;
    if status.success() {
        return Ok(());
    }
    Err(LabError::new(format!("start host {name}")).because(console(&trace)))
}

/// Waits until the host's sshd listens. It is not dialled: newer releases count connections that
/// say nothing as attacks.
pub(super) fn wait_for_sshd(lab: &Lab, number: usize) -> Result<(), LabError> {
    let name = host_name(number);
    let namespace = lab.switch.namespace_of(&name);
    let begun = Instant::now();
    let trace = lab.chassis(number).join("console.log");
    loop {
        let processes = processes_in(&namespace);
        if processes.iter().any(|process| listens_on_22(*process)) {
            return Ok(());
        }
        let ended = processes.is_empty() && begun.elapsed() > BIRTH;
        if ended || begun.elapsed() > PATIENCE {
            let what = if ended { "ended" } else { "does not listen" };
            return Err(LabError::new(format!("the sshd of host {name} {what}"))
                .because(console(&trace))
                .hint(format!("its console: {}", trace.display())));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Runs a script in all namespaces of a host.
pub(super) fn run(lab: &Lab, number: usize, script: &str) -> Result<Output, LabError> {
    let name = host_name(number);
    let Some(first) = first_process(&lab.switch.namespace_of(&name)) else {
        return Err(LabError::new(format!("host {name} is switched off")));
    };
    let target = first.to_string();
    tool("nsenter")
        .args(["--target", &target, "--mount", "--uts", "--pid", "--net", "--wd=/"])
        .args(["/bin/sh", "-c", script])
        .stdin(Stdio::null())
        .output()
        .attempt(|| format!("run a script on host {name}"))
}

pub(super) fn processes(lab: &Lab, number: usize, program: &str) -> Result<Vec<i32>, LabError> {
    let found = processes_in(&lab.switch.namespace_of(&host_name(number)));
    let is_called = |process: &i32| {
        let comm = fs::read_to_string(format!("/proc/{process}/comm")).unwrap_or_default();
        // The kernel keeps fifteen bytes of a name.
        let kept = program.get(..15).unwrap_or(program);
        comm.trim_end() == kept
    };
    Ok(found.into_iter().filter(is_called).collect())
}

/// The process that is number 1 within its host, by the number that the real machine gives it.
fn first_process(namespace: &str) -> Option<i32> {
    processes_in(namespace).into_iter().find(|process| {
        let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
        line.is_some_and(|ids| {
            let ids: Vec<&str> = ids.split_whitespace().collect();
            ids.len() > 1 && ids.last() == Some(&"1")
        })
    })
}

/// Whether the net namespace of a process has a listener on port 22 (0x16; state 0A is LISTEN).
fn listens_on_22(process: i32) -> bool {
    let table = fs::read_to_string(format!("/proc/{process}/net/tcp")).unwrap_or_default();
    table.lines().skip(1).any(|line| {
        let mut words = line.split_whitespace().skip(1);
        words.next().is_some_and(|local| local.ends_with(":0016")) && words.nth(1) == Some("0A")
    })
}

pub(super) fn make_key(path: &Path, comment: &str) -> Result<(), LabError> {
    if path.exists() && path.with_extension("pub").exists() {
        return Ok(());
    }
    // A key without its other half is what a killed `up` left.
    let _ = fs::remove_file(path);
    let file = path.display().to_string();
    call("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", &file]).map(|_| ())
}

/// As distinct as the host's key is.
fn machine_id(public_key: &Path) -> Result<String, LabError> {
    let key = fs::read(public_key).attempt(|| format!("read {}", public_key.display()))?;
    let fold = |seed: u64| {
        key.iter()
            .fold(seed, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3))
    };
    Ok(format!("{:016x}{:016x}", fold(0xcbf2_9ce4_8422_2325), fold(0x6c62_272e_07bb_0142)))
}

fn hosts_file(lab: &Lab) -> String {
    let line = |number| format!("{} {}\n", lab.address(number), host_name(number));
    let hosts: String = (1..=lab.hosts).map(line).collect();
    format!("127.0.0.1 localhost\n{hosts}")
}

fn console(trace: &Path) -> String {
    let text = fs::read_to_string(trace).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(5)..].join("\n")
}

fn make_folder(path: &Path, mode: u32) -> Result<(), LabError> {
    let doing = || format!("make {}", path.display());
    fs::DirBuilder::new().recursive(true).mode(0o755).create(path).attempt(doing)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).attempt(doing)
}

fn write(path: &Path, text: &str) -> Result<(), LabError> {
    fs::write(path, text).attempt(|| format!("write {}", path.display()))
}
