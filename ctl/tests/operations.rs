//! What can go wrong between an operator and the hosts, tried for real: steps that fail, a tool that
//! is killed, locks, swapped keys, lost disks, the wrong window. The numbers are those of the list
//! of pitfalls.

mod support;

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use support::{Said, Site, eventually};

/// Success is never reported after a failed step, and the failure names its host.
#[test]
fn pitfall_89_a_failed_step_is_told() {
    let Some(site) = Site::new("failed", 3) else { return };
    let inventory = &site.open_inventory();
    // A file stands where n2's deploy folder should be.
    site.lab.output("n2", "mkdir -p /opt && touch /opt/paxos").unwrap();
    let said = site.ctl(inventory, &["up"]).expect(4);
    assert!(said.stderr.contains("error[REMOTE] n2:"), "{}", said.stderr);
    site.lab.output("n2", "rm /opt/paxos").unwrap();

    // The port is taken: the node says so and exits, which is seen and shown.
    let holder = "(command -v python3 >/dev/null && exec setsid python3 -c \
        'import socket,time; s=socket.socket(); s.bind((\"\",7380)); s.listen(); time.sleep(60)' \
        >/dev/null 2>&1 </dev/null &) ; sleep 1; true";
    site.lab.output("n3", holder).unwrap();
    let said = site.ctl(inventory, &["check", "-n", "n3"]);
    if said.stdout.contains("7380 is held by") {
        let said = site.ctl(inventory, &["up", "--settle", "20s"]).expect(9);
        assert!(said.stderr.contains("n3"), "{}", said.stderr);
        assert!(said.stderr.contains("7380"), "the node's own words are shown: {}", said.stderr);
        assert!(said.stderr.contains("run the same command again"), "{}", said.stderr);
        site.lab.output("n3", "kill $(pidof python3)").unwrap();
    } else {
        support::skipped("a taken port, as there is no python3 to take it");
    }
    site.ctl(inventory, &["up"]).expect(0);
    site.ctl(inventory, &["status", "--wait", "healthy"]).expect(0);
    let audit = site.ctl(inventory, &["audit"]).expect(0);
    assert!(audit.stdout.contains("ok"), "{}", audit.stdout);
}

/// In whatever phase the tool is killed, the next run goes on from there, and leaves no mark.
#[test]
fn pitfall_90_a_run_that_broke_off_is_finished_by_the_next() {
    let Some(site) = Site::new("broken", 3) else { return };
    let inventory = &site.open_inventory();
    let phases = [
        "copy releases",
        "write configurations",
        "switch to the release",
        "format new nodes",
        "introduce the nodes",
        "start nodes",
        "wait for a leader",
        "leave the inventory",
    ];
    let mut killed = 0;
    for phase in phases {
        let mut up = site.command(inventory, &["up"]);
        let mut tool = up.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let voice = BufReader::new(tool.stderr.take().unwrap());
        let begun = voice.lines().any(|line| line.unwrap().contains(phase));
        tool.kill().unwrap();
        tool.wait().unwrap();
        killed += usize::from(begun);
        // PITFALL 92: the lock of the dead is not for ever; nobody waits half a minute in a test.
        for host in site.lab.host_names() {
            site.expire_lock(&host);
        }
    }
    assert!(killed >= 4, "only {killed} runs were killed in their phase");
    // PITFALL 95: what the dead tool had begun on a host may still end there, between the look and
    // the lock; then nothing is done, and the next run is asked for.
    eventually("the next run finishes", || {
        let said = site.ctl(inventory, &["up"]);
        assert!(said.code == 0 || said.stderr.contains("nothing was done"), "{said:?}");
        (said.code == 0).then_some(())
    });
    site.ctl(inventory, &["up"]).expect(0).says("No changes");
    site.ctl(inventory, &["status", "--wait", "healthy"]).expect(0);
    for host in site.lab.host_names() {
        let left = site.lab.output(&host, "cd /opt/paxos; ls -A . releases/*").unwrap();
        assert!(!left.contains(".part"), "{left}");
        assert!(!left.lines().any(|name| name == "lock"), "{left}");
        assert_eq!(site.lab.processes(&host, "paxos-node").unwrap().len(), 1, "on {host}");
    }
}

#[test]
fn pitfall_92_a_lock_says_who_holds_it_and_ends_by_itself() {
    let Some(site) = Site::new("locked", 3) else { return };
    let inventory = &site.open_inventory();
    site.leave_lock("n2", 0);
    let said = site.ctl(inventory, &["up"]).expect(8);
    for word in ["error[LOCK] n2", "ann@desk", "`upgrade`", "2026-01-02T03:04:05Z", "lock release"]
    {
        assert!(said.stderr.contains(word), "no {word} in {}", said.stderr);
    }
    // The refused run has given back what it had taken.
    let n1 = site.lab.output("n1", "ls /opt/paxos").unwrap();
    assert!(!n1.lines().any(|name| name == "lock"), "{n1}");
    site.ctl(inventory, &["lock", "show"]).expect(0).says("ann@desk").says("held");
    site.ctl(inventory, &["lock", "release"]).expect(2).says("--yes");
    site.ctl(inventory, &["lock", "release", "--yes"]).expect(0);
    site.ctl(inventory, &["audit"]).expect(0).says("lock release (of ann@desk");

    // An expired one stops nobody.
    site.leave_lock("n3", 31);
    site.ctl(inventory, &["up"]).expect(0);
}

/// Two runs at once never overlap: one does the work, the other is told of it or finds it done.
#[test]
fn pitfall_95_two_runs_never_overlap() {
    let Some(site) = Site::new("both", 3) else { return };
    let inventory = &site.open_inventory();
    let start = || {
        let mut up = site.command(inventory, &["up"]);
        up.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let (one, two) = (start(), start());
    let both = [one, two].map(|tool| Said::of(tool.wait_with_output().unwrap()));
    let codes = [both[0].code, both[1].code];
    assert!(codes.contains(&0), "{both:?}");
    assert!(codes.iter().all(|code| [0, 7, 8].contains(code)), "{both:?}");
    site.ctl(inventory, &["up"]).expect(0).says("No changes");
    for host in site.lab.host_names() {
        assert_eq!(site.lab.processes(&host, "paxos-node").unwrap().len(), 1, "on {host}");
    }
}

/// Ctrl-C ends the current step, gives the lock back and says how to go on.
#[test]
fn ctrl_c_stops_in_a_known_state() {
    let Some(site) = Site::new("ctrlc", 3) else { return };
    let inventory = &site.open_inventory();
    let mut up = site.command(inventory, &["up"]);
    let mut tool = up.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let pid = i32::try_from(tool.id()).unwrap();
    let mut said = String::new();
    for line in BufReader::new(tool.stderr.take().unwrap()).lines() {
        let line = line.unwrap();
        if line.contains("write configurations") {
            let pid = rustix::process::Pid::from_raw(pid).unwrap();
            rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
        }
        said += &line;
        said.push('\n');
    }
    let code = tool.wait().unwrap().code();
    assert_eq!(code, Some(9), "{said}");
    assert!(said.contains("stopping after the current step"), "{said}");
    assert!(
        said.contains("error[PARTLY]") && said.contains("run the same command again"),
        "{said}"
    );
    site.ctl(inventory, &["lock", "show"]).expect(0).says("free");
    site.ctl(inventory, &["audit"]).expect(0).says("Partly");
    site.ctl(inventory, &["up"]).expect(0);
}

/// A host that shows another key is refused by every verb.
#[test]
fn pitfall_93_a_swapped_host_key_stops_every_verb() {
    let Some(site) = Site::new("swapped", 1) else { return };
    let inventory = &site.open_inventory();
    site.ctl(inventory, &["show"]).expect(0);
    // The key on record becomes another one, which is what a swapped host looks like from here.
    let known_hosts = site.lab.known_hosts();
    let other = site.path("other");
    let made = std::process::Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-f"])
        .arg(&other)
        .status();
    assert!(made.unwrap().success());
    let public = fs::read_to_string(other.with_extension("pub")).unwrap();
    let key: Vec<&str> = public.split_whitespace().take(2).collect();
    let text = fs::read_to_string(&known_hosts).unwrap();
    let subject = text.split_whitespace().next().unwrap();
    fs::write(&known_hosts, format!("{subject} {}\n", key.join(" "))).unwrap();
    let verbs: [&[&str]; 9] = [
        &["plan"],
        &["up"],
        &["down", "--yes"],
        &["show"],
        &["logs"],
        &["exec", "true"],
        &["audit"],
        &["lock", "show"],
        &["check"],
    ];
    for verb in verbs {
        let said = site.ctl(inventory, verb).expect(3);
        assert!(format!("{}{}", said.stdout, said.stderr).contains("another key"), "{verb:?}");
    }
    site.ctl(inventory, &["trust", "--yes"]).expect(3).says("CHANGED").says("--replace");
    site.ctl(inventory, &["trust", "--yes", "--replace"]).expect(0);
    site.ctl(inventory, &["show"]).expect(0);
}

/// A password that went through the verbs is found nowhere but where it belongs.
#[test]
fn pitfall_94_secrets_are_in_no_log() {
    let Some(site) = Site::new("secret", 1) else { return };
    let inventory = &site.path("mine.toml");
    let open = fs::read_to_string(site.open_inventory()).unwrap();
    fs::write(inventory, open.replace("\"open\"", "\"auth\"")).unwrap();
    for name in ["id_ed25519", "known_hosts"] {
        fs::copy(site.lab.dir().join(name), site.path(name)).unwrap();
    }
    let password = site.ctl(inventory, &["user", "add", "app"]).expect(0).stdout.trim().to_owned();
    let mut said = String::new();
    let verbs: [&[&str]; 6] = [
        &["-vv", "up"],
        &["-vv", "call", "--user", "app", "SET", "k", "v"],
        &["-vv", "call", "--user", "nobody", "GET", "k"],
        &["-vv", "audit"],
        &["-vv", "logs", "--lines", "1000"],
        &["-vv", "show", "-o", "json"],
    ];
    for verb in verbs {
        let mut command = site.command(inventory, verb);
        let answer = Said::of(command.env("PAXOS_PASSWORD", &password).output().unwrap());
        said += &answer.stdout;
        said += &answer.stderr;
    }
    assert!(said.contains("OK"), "the command went through: {said}");
    assert!(!said.contains(&password), "the tool says the password");
    let files = "cat /opt/paxos/*.ndjson /opt/paxos/node.out* /opt/paxos/*.toml; \
                 find /var/lib/paxos/trace -type f -exec cat {} +; cat /proc/[0-9]*/cmdline";
    let found = site.lab.run("n1", files).unwrap();
    let found = String::from_utf8_lossy(&found.stdout);
    assert!(found.contains("paxos-node"), "the search saw something");
    assert!(!found.contains(&password), "the host has the password");
}

/// Two clusters on one host: wiping one leaves the other as it was.
#[test]
fn pitfall_52_only_our_own_processes_and_data_are_touched() {
    let Some(site) = Site::new("two", 1) else { return };
    let first = &site.open_inventory();
    let second = &site.lab.dir().join("second.toml");
    let text = fs::read_to_string(first).unwrap();
    let name = site.lab.name();
    let text = text.replace(&format!("name = \"{name}\""), "name = \"second\"").replace(
        "[[host]]",
        "[[host]]\nclient_port = 8379\npeer_port = 8380\nhttp_port = 8381\n\
         deploy_dir = \"/opt/paxos-second\"\ndata_dir = \"/var/lib/paxos-second\"",
    );
    fs::write(second, text).unwrap();
    site.ctl(first, &["up"]).expect(0);
    site.ctl(second, &["up"]).expect(0);
    assert_eq!(site.lab.processes("n1", "paxos-node").unwrap().len(), 2);
    site.ctl(second, &["call", "SET", "k", "kept"]).expect(0);

    site.ctl(first, &["down", "--wipe", "--yes-wipe", name]).expect(0);
    assert_eq!(site.lab.processes("n1", "paxos-node").unwrap().len(), 1);
    assert_eq!(site.ctl(second, &["call", "GET", "k"]).expect(0).stdout, "kept\n");
    let left = site.lab.run("n1", "ls -A /var/lib/paxos 2>/dev/null").unwrap();
    assert!(left.stdout.is_empty(), "the first one's data is gone");

    // The first one's lost pidfile is no licence to kill the other.
    site.lab.output("n1", "cp /opt/paxos-second/paxos-node.pid /opt/paxos/paxos-node.pid").unwrap();
    site.ctl(first, &["down", "--yes"]).expect(0);
    assert_eq!(site.lab.processes("n1", "paxos-node").unwrap().len(), 1);
}

/// The wrong window: what would cost the quorum or data is refused, and says what it is about.
#[test]
fn pitfall_97_what_takes_too_much_is_refused() {
    let Some(site) = Site::new("guard", 3) else { return };
    let inventory = &site.open_inventory();
    let name = site.lab.name().to_owned();
    site.ctl(inventory, &["up"]).expect(0);
    site.ctl(inventory, &["call", "SET", "k", "v"]).expect(0);

    let said = site.ctl(inventory, &["down", "-n", "n1,n2", "--yes"]).expect(7);
    said.says("leaves 1 caught-up voter of 3, needs 2");
    site.ctl(inventory, &["down", "--wipe", "--yes"]).expect(2).says(&format!("--yes-wipe {name}"));
    site.ctl(inventory, &["down", "--wipe", "--yes-wipe", "other"]).expect(2);
    site.ctl(inventory, &["down", "-n", "n1", "--wipe", "--yes-wipe", &name]).expect(7);
    site.ctl(inventory, &["down", "-n", "n9", "--yes"]).expect(2).says("n9");

    // One may go; then the second is the one too many, though two are up.
    site.ctl(inventory, &["down", "-n", "n1", "--yes"]).expect(0);
    let said = site.ctl(inventory, &["down", "-n", "n2", "--yes"]).expect(7);
    said.says("n1 is down; stopping n2 leaves 1 caught-up voter of 3, needs 2");

    // A lost disk is never formatted again.
    site.lab.output("n1", "rm -rf /var/lib/paxos").unwrap();
    let said = site.ctl(inventory, &["up"]).expect(7);
    said.says("error[GUARD] n1").says("member replace");
    assert_eq!(site.ctl(inventory, &["call", "GET", "k"]).expect(0).stdout, "v\n");
}

/// PITFALL 96, and a release that does not run: what counts is the program in memory, and a node
/// that does not come back goes back to what it ran.
#[test]
fn a_new_release_replaces_the_running_one_node_by_node() {
    let Some(site) = Site::new("release", 3) else { return };
    let inventory = &site.path("mine.toml");
    let built = Path::new(env!("CARGO_BIN_EXE_paxosctl")).with_file_name("paxos-node");
    let binary = site.path("paxos-node");
    fs::copy(&built, &binary).unwrap();
    let text = fs::read_to_string(site.open_inventory()).unwrap();
    let config = format!("config = \"default\"\nbinary = \"{}\"", binary.display());
    fs::write(inventory, text.replace("config = \"default\"", &config)).unwrap();
    for name in ["id_ed25519", "known_hosts"] {
        fs::copy(site.lab.dir().join(name), site.path(name)).unwrap();
    }
    site.ctl(inventory, &["up"]).expect(0);
    site.ctl(inventory, &["call", "SET", "k", "v"]).expect(0);

    // The same program with another digest.
    let mut program = fs::read(&built).unwrap();
    program.extend_from_slice(b"\nanother build\n");
    fs::write(&binary, &program).unwrap();
    site.ctl(inventory, &["plan"]).expect(0).says("3 restarts, 1 leader move. Quorum kept");
    site.ctl(inventory, &["up"]).expect(0);
    site.ctl(inventory, &["up"]).expect(0).says("No changes");
    assert_eq!(site.ctl(inventory, &["call", "GET", "k"]).expect(0).stdout, "v\n");

    // A program that answers --version and then does not run: the first node goes back, the others
    // are not touched, and the cluster serves all the time.
    let shim = "int puts(const char*); int main(int n, char **v) { \
                if (n == 2) { puts(\"paxos-node 9\"); return 0; } \
                puts(\"I will not run\"); return 3; }";
    let source = site.path("shim.c");
    fs::write(&source, shim).unwrap();
    let compiled = std::process::Command::new("cc").arg("-o").arg(&binary).arg(&source).status();
    if !compiled.is_ok_and(|status| status.success()) {
        return support::skipped("cc cannot compile (Debian: gcc, libc6-dev)");
    }
    let said = site.ctl(inventory, &["up"]).expect(9);
    assert!(said.stderr.contains("went back to"), "{}", said.stderr);
    assert!(said.stderr.contains("I will not run"), "its last words: {}", said.stderr);
    site.ctl(inventory, &["status", "--wait", "healthy"]).expect(0);
    assert_eq!(site.ctl(inventory, &["call", "GET", "k"]).expect(0).stdout, "v\n");
}

/// A dead host costs seconds, not minutes, and the answer is marked as partial.
#[test]
fn status_answers_with_a_dead_host() {
    let Some(site) = Site::new("dead", 3) else { return };
    let inventory = &site.open_inventory();
    site.ctl(inventory, &["up"]).expect(0);
    site.lab.switch_off("n3").unwrap();
    let began = Instant::now();
    let said = site.ctl(inventory, &["status"]);
    let took = began.elapsed();
    assert!([12, 5].contains(&said.code), "{said:?}");
    assert!(said.stdout.contains("(partial)"), "{}", said.stdout);
    assert!(took < Duration::from_secs(20), "a hung look: {took:?}");
    eventually("the others serve", || (site.ctl(inventory, &["status"]).code == 12).then_some(()));
    site.ctl(inventory, &["up"]).expect(3).says("error[SSH] n3");
    site.lab.switch_on("n3").unwrap();
    site.ctl(inventory, &["up"]).expect(0).says("+ start the node");
    site.ctl(inventory, &["status", "--wait", "healthy"]).expect(0);
}

/// A host behind another one: keys, copies and status all go through it.
#[test]
fn everything_works_through_a_bastion() {
    let Some(site) = Site::new("bastion", 2) else { return };
    let inventory = &site.path("mine.toml");
    let text = fs::read_to_string(site.open_inventory()).unwrap();
    // n1 is the bastion only; n2 is the cluster.
    let (head, hosts) = text.split_once("[[host]]").unwrap();
    let (_, rest) = hosts.split_once("[[host]]").unwrap();
    let ssh = format!("known_hosts = \"mine\"\njump = [\"root@{}\"]", site.address("n1"));
    let head = head.replace("known_hosts = \"known_hosts\"", &ssh);
    let text = format!("{head}[[host]]{rest}");
    fs::write(inventory, text).unwrap();
    fs::copy(site.lab.identity_file(), site.path("id_ed25519")).unwrap();

    site.ctl(inventory, &["plan"]).expect(3);
    let said = site.ctl(inventory, &["trust", "--yes"]).expect(0);
    for host in ["n1", "n2"] {
        assert!(said.stdout.contains(&site.address(host)), "{}", said.stdout);
    }
    site.ctl(inventory, &["up"]).expect(0);
    site.ctl(inventory, &["status", "--wait", "healthy"]).expect(0);
    assert!(site.lab.processes("n1", "paxos-node").unwrap().is_empty());
}

/// A plan that was saved is carried out as it is, or not at all; a host that cannot be reached is
/// left out only when asked for.
#[test]
fn a_saved_plan_is_refused_when_anything_moved() {
    let Some(site) = Site::new("saved", 3) else { return };
    let inventory = &site.open_inventory();
    let path = site.path("plan.json");
    let file = path.to_str().unwrap();
    site.ctl(inventory, &["plan", "--out", file]).expect(0);
    site.ctl(inventory, &["up", "--plan", file]).expect(0);
    // The same plan a second time: the hosts are no longer as they were.
    let said = site.ctl(inventory, &["up", "--plan", file]).expect(7);
    said.says("host n1, host n2, host n3").says("nothing was done");

    site.lab.kill_processes("n2", "paxos-node").unwrap();
    site.lab.switch_off("n3").unwrap();
    site.ctl(inventory, &["up"]).expect(3).says("--skip-unreachable");
    let said = site.ctl(inventory, &["up", "--skip-unreachable"]).expect(9);
    said.says("error[PARTLY]").says("error[SSH] n3");
    eventually("two of three serve", || {
        (site.ctl(inventory, &["status"]).code == 12).then_some(())
    });
}

/// An inventory that would run code here is refused before anything is dialled.
#[test]
fn an_inventory_cannot_run_code() {
    let folder = tempfile::tempdir().unwrap();
    let inventory = folder.path().join("sly.toml");
    let mark = folder.path().join("mark");
    let sly = format!("-oProxyCommand=touch {}", mark.display());
    let text = format!(
        "schema = 1\n[cluster]\nname = \"demo\"\n[[host]]\nname = \"n1\"\nid = 1\naddress = \"{sly}\"\n"
    );
    fs::write(&inventory, text).unwrap();
    for verb in ["check", "plan", "up", "show", "trust"] {
        let said = Said::of(
            std::process::Command::new(env!("CARGO_BIN_EXE_paxosctl"))
                .arg("-i")
                .arg(&inventory)
                .arg(verb)
                .stdin(Stdio::null())
                .output()
                .unwrap(),
        );
        said.expect(2);
        assert!(!mark.exists());
    }
}

/// The inventory was lost here: any host gives back the copy that `up` left, to whoever has a key in
/// an agent and knows the host's own.
#[test]
fn a_lost_inventory_is_read_back_from_a_host() {
    let Some(site) = Site::new("lost", 3) else { return };
    site.ctl(&site.open_inventory(), &["up"]).expect(0);
    let home = site.path("home");
    fs::create_dir_all(home.join(".ssh")).unwrap();
    let socket = site.path("agent");
    let mut agent = Command::new("ssh-agent");
    agent.arg("-D").arg("-a").arg(&socket).stdout(Stdio::null());
    let _agent = Agent(agent.spawn().unwrap());
    eventually("the agent has the key", || {
        let mut add = Command::new("ssh-add");
        add.arg("-q").arg(site.lab.identity_file()).env("SSH_AUTH_SOCK", &socket);
        add.stderr(Stdio::null()).status().unwrap().success().then_some(())
    });
    let address = site.address("n2");
    let ask = |place: &str, args: &[&str]| {
        let place = format!("ssh://root@{address}{place}");
        let mut command = site.command(Path::new(&place), args);
        Said::of(command.env("HOME", &home).env("SSH_AUTH_SOCK", &socket).output().unwrap())
    };

    // A host that nobody knows could say anything.
    ask("", &["show"]).expect(3).says("error[SSH]");
    for folder in [home.join(".ssh"), site.folder.path().to_owned()] {
        fs::copy(site.lab.known_hosts(), folder.join("known_hosts")).unwrap();
    }
    let shown = ask("", &["show"]).expect(0);
    for host in ["n1", "n2", "n3"] {
        assert!(shown.stdout.contains(host), "{}", shown.stdout);
    }
    ask("/opt/paxos", &["status", "--wait", "healthy"]).expect(0).says("can lose 1 more");
    ask("/opt/paxos", &["plan"]).expect(0).says("No changes");
    ask("/opt/elsewhere", &["show"]).expect(4).says("/opt/elsewhere/inventory.toml");
}

/// Ended by its pid.
struct Agent(std::process::Child);

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
