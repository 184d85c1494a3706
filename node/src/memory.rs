//! How much memory this node may use, and what of it goes where, for whoever has not said so.

use std::fs;
use std::path::Path;

use config::Behaviour;

/// The most that clients get without being given it by name.
const CLIENTS_BYTES_MAX: u64 = 1 << 30;

/// Fills in the limits that the configuration leaves to the machine: half for the data, a quarter
/// for the clients. Where it cannot be told what there is, only the clients are bounded.
pub fn share_out(behaviour: &mut Behaviour, available_bytes: Option<u64>) {
    if behaviour.store_bytes_max == 0 {
        behaviour.store_bytes_max = available_bytes.map_or(0, |bytes| bytes / 2);
    }
    if behaviour.clients_bytes_max == 0 {
        let share = available_bytes.map_or(CLIENTS_BYTES_MAX, |bytes| bytes / 4);
        let least = 4 * behaviour.command_bytes_max;
        behaviour.clients_bytes_max = share.clamp(least, CLIENTS_BYTES_MAX.max(least));
    }
    let (store, clients) = (behaviour.store_bytes_max, behaviour.clients_bytes_max);
    tracing::info!(?available_bytes, store, clients, "memory limits");
}

/// The machine's memory, or less where a control group holds this process to less.
pub fn available_bytes() -> Option<u64> {
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| total_bytes(&text));
    let group = fs::read_to_string("/proc/self/cgroup").ok();
    let group = group.and_then(|text| group_limit_bytes(Path::new("/sys/fs/cgroup"), &text));
    [machine, group].into_iter().flatten().min()
}

fn total_bytes(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// The lowest limit on the way from the root to this process's group (version 2 of them). In a
/// container the group's own files stand at the root.
fn group_limit_bytes(root: &Path, cgroup: &str) -> Option<u64> {
    let path = cgroup.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let own = root.join(path);
    let folders = own.ancestors().take_while(|folder| folder.starts_with(root));
    let limits = folders.filter_map(|folder| fs::read_to_string(folder.join("memory.max")).ok());
    limits.filter_map(|text| text.trim().parse().ok()).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_of_machine_and_groups_counts() {
        let meminfo = "MemTotal:       16384 kB\nMemFree:          100 kB\n";
        assert_eq!(total_bytes(meminfo), Some(16 << 20));
        assert_eq!(total_bytes("MemFree: 1 kB\n"), None);
        let root = tempfile::tempdir().unwrap();
        let own = root.path().join("system.slice/paxos.service");
        fs::create_dir_all(&own).unwrap();
        let limit =
            || group_limit_bytes(root.path(), "1:name=x:/\n0::/system.slice/paxos.service\n");
        assert_eq!(limit(), None);
        fs::write(own.join("memory.max"), "max\n").unwrap();
        assert_eq!(limit(), None);
        fs::write(own.join("memory.max"), "4096\n").unwrap();
        fs::write(root.path().join("system.slice/memory.max"), "2048\n").unwrap();
        assert_eq!(limit(), Some(2048));
    }

    #[test]
    fn what_is_said_counts_and_the_rest_is_a_share() {
        let shared = |store, clients, available| {
            let mut behaviour = Behaviour {
                store_bytes_max: store,
                clients_bytes_max: clients,
                ..Behaviour::default()
            };
            share_out(&mut behaviour, available);
            (behaviour.store_bytes_max, behaviour.clients_bytes_max)
        };
        assert_eq!(shared(0, 0, Some(2 << 30)), (1 << 30, 512 << 20));
        assert_eq!(shared(0, 0, Some(64 << 30)), (32 << 30, 1 << 30));
        assert_eq!(shared(0, 0, Some(64 << 20)), (32 << 20, 32 << 20));
        assert_eq!(shared(5, 7, Some(64 << 30)), (5, 7));
        assert_eq!(shared(0, 0, None), (0, 1 << 30));
    }
}
