//! Presets and node files as people write them, right and wrong.

use config::{Behaviour, Election, Members, NodeConfig, PRESETS, preset, preset_names};

#[test]
fn every_preset_loads() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("presets");
    let files = std::fs::read_dir(&folder).unwrap().count();
    assert_eq!(files, PRESETS.len(), "every file of presets/ is a preset, and the reverse");
    for name in preset_names() {
        let by_name = preset(name).unwrap_or_else(|problems| panic!("{problems}"));
        let path = folder.join(name).with_extension("toml");
        assert_eq!(preset(path.to_str().unwrap()).unwrap(), by_name);
    }
}

#[test]
fn the_default_preset_writes_down_every_default() {
    let text = PRESETS.iter().find(|(name, _)| *name == "default").unwrap().1;
    assert_eq!(preset("default").unwrap(), Behaviour::default());
    let written = text.parse::<toml::Table>().unwrap();
    let known = toml::Table::try_from(Behaviour::default()).unwrap();
    assert_eq!(written, known, "presets/default.toml documents every key");
}

#[test]
fn highest_id_takes_over_after_two_heartbeats() {
    let behaviour = preset("highest-id").unwrap();
    assert_eq!(behaviour.election, Election::HighestId);
    assert_eq!(behaviour.silence_ms, 2 * behaviour.heartbeat_ms);
    assert_eq!(behaviour.silence_jitter_ms, 0);
}

#[test]
fn the_other_presets_hold_only_what_they_change() {
    let default = toml::Table::try_from(Behaviour::default()).unwrap();
    for (name, text) in PRESETS.iter().filter(|(name, _)| *name != "default") {
        for (key, value) in text.parse::<toml::Table>().unwrap() {
            assert_ne!(default[&key], value, "{name}: {key} is as in the default preset");
        }
    }
}

#[test]
fn an_unknown_preset_names_the_one_that_was_meant() {
    insta::assert_snapshot!(preset("highestid").unwrap_err(), @r"
    highestid: no such preset: default, wan, highest-id
        hint: did you mean `highest-id`?
    ");
    insta::assert_snapshot!(preset("./none.toml").unwrap_err(), @r"
    ./none.toml: cannot read: No such file or directory (os error 2)
    ");
}

#[test]
fn all_that_is_wrong_with_a_preset_is_said_at_once() {
    let text = "elecion = \"ballot\"\nheartbeat_ms = 0\nsilence_ms = \"150\"\nwindow_slots = -1\n";
    insta::assert_snapshot!(Behaviour::parse(text, "mine.toml").unwrap_err(), @r"
    mine.toml:1:1: unknown key `elecion`
        hint: did you mean `election`?
    mine.toml:2:16: heartbeat_ms = 0 is out of range: 5 to 60000
    mine.toml:3:14: silence_ms is a whole number, not a string
    mine.toml:4:16: window_slots = -1 is out of range: 1 to 65536
    ");
}

#[test]
fn values_that_contradict_each_other_are_found() {
    let text = "heartbeat_ms = 50\nsilence_ms = 200\nphase1_max_ms = 100\nstalled_ms = 100\n\
                segment_bytes = 65536\n";
    insta::assert_snapshot!(Behaviour::parse(text, "mine.toml").unwrap_err(), @r"
    mine.toml:2:14: silence_ms = 200 is less than six heartbeats of 50 ms
        hint: a few lost packets are no failure: at least 300
    mine.toml:3:17: phase1_max_ms = 100 is below phase1_ms = 200
        hint: attempts get longer, not shorter: 200 or more
    mine.toml:4:14: stalled_ms = 100 is below silence_ms = 200
        hint: a leader should not give up sooner than others would suspect it: 200 or more
    mine.toml:5:17: segment_bytes = 65536 is below twice command_bytes_max = 16777216
        hint: the largest command must fit into a segment, beside its checkpoint: 16777216 or more
    ");
    let text = "election = \"highest-id\"\n";
    insta::assert_snapshot!(Behaviour::parse(text, "mine.toml").unwrap_err(), @r#"
    mine.toml: silence_ms = 150, but election = "highest-id" takes over after exactly two heartbeats of 25 ms
        hint: silence_ms = 50
    "#);
}

const NODE: &str = r#"schema = 1
cluster = "demo"
cluster_uuid = "0123456789abcdef0123456789abcdef"
id = 1
name = "n1"
data_dir = "/var/lib/paxos"

[listen]
client = "127.0.0.1:7379"
peer = "127.0.0.1:7380"
http = "127.0.0.1:7381"
"#;

#[test]
fn a_short_node_file_is_enough() {
    let node = NodeConfig::parse(NODE, "node.toml").unwrap();
    assert_eq!(node.behaviour, Behaviour::default());
    assert!(node.users.is_empty());
}

#[test]
fn all_that_is_wrong_with_a_node_file_is_said_at_once() {
    let text = NODE
        .replace("schema = 1", "schema = 2")
        .replace("\"/var/lib/paxos\"", "\"var/lib\"")
        .replace("127.0.0.1:7380", "localhost:7380")
        .replace("name = \"n1\"\n", "")
        + "[behavior]\nheartbeat_ms = 1\n[trace]\nstderr = \"yes\"\n[[user]]\nname = 1\n";
    insta::assert_snapshot!(NodeConfig::parse(&text, "node.toml").unwrap_err(), @r#"
    node.toml:1:1: `name` is missing
    node.toml:1:10: schema = 2 is newer than 1, the newest that this release reads: start the release that wrote it, or a newer one
    node.toml:5:12: data_dir = "var/lib" is not an absolute path: it begins with `/`
    node.toml:9:8: listen.peer = "localhost:7380" is not written like "127.0.0.1:7379"
    node.toml:11:2: unknown key `behavior`
        hint: did you mean `behaviour`?
    node.toml:14:10: trace.stderr is true or false, not a string
    node.toml:15:1: `user[0].role` is missing
    node.toml:15:1: `user[0].password_sha256` is missing
    node.toml:16:8: user[0].name is a string, not a number
    "#);
}

#[test]
fn what_a_node_refuses_to_start_with() {
    let text = NODE
        .replace("127.0.0.1:7379", "0.0.0.0:7379")
        .replace("127.0.0.1:7380", "10.0.0.1:7380")
        .replace("127.0.0.1:7381", "0.0.0.0:7379")
        .replace("abcdef\"", "abcdeg\"")
        + "[security]\npeers = \"plain\"\nscrape_from = [\"10.0.0.0/40\"]\n";
    insta::assert_snapshot!(NodeConfig::parse(&text, "node.toml").unwrap_err(), @r#"
    node.toml:3:16: cluster_uuid = "0123456789abcdef0123456789abcdeg" is no uuid
        hint: 32 lower-case hex digits
    node.toml:9:10: clients would be served on 0.0.0.0:7379, but there is no user
        hint: add one: `paxosctl user add app`; or admit everyone: clients = "open"
    node.toml:11:8: listen.http and listen.client are both 0.0.0.0:7379
        hint: give each a port of its own
    node.toml:13:9: peers = "plain", but listen.peer = 10.0.0.1:7380 is not on loopback
        hint: whoever reaches that port could join the cluster: peers = "tls"
    node.toml:14:15: scrape_from: "10.0.0.0/40" is no range of addresses
        hint: written like "10.0.0.0/8"
    "#);
}

#[test]
fn a_password_in_the_place_of_its_digest_is_not_repeated_pitfall_94() {
    let text = NODE.to_owned()
        + "[[user]]\nname = \"app\"\nrole = \"rw\"\npassword_sha256 = [\"hunter2\"]\n\
           [[user]]\nname = \"app\"\nrole = \"ro\"\npassword_sha256 = []\n";
    let said = NodeConfig::parse(&text, "node.toml").unwrap_err().to_string();
    assert!(!said.contains("hunter2"), "{said}");
    insta::assert_snapshot!(said, @r"
    node.toml:15:19: user app has a password that is no sha-256 digest
        hint: 64 lower-case hex digits
    node.toml:17:8: two users are called app
        hint: names are unique
    node.toml:19:19: user app has 0 passwords
        hint: one, or two during a rotation
    ");
}

#[test]
fn clients_beyond_loopback_need_a_user_or_an_explicit_word() {
    let beyond = NODE.replace("127.0.0.1:7379", "10.0.0.11:7379");
    assert!(NodeConfig::parse(&beyond, "node.toml").is_err());
    let open = beyond.clone() + "[security]\nclients = \"open\"\n";
    assert!(NodeConfig::parse(&open, "node.toml").is_ok());
    let digest = "ab".repeat(32);
    let user =
        format!("[[user]]\nname = \"app\"\nrole = \"ro\"\npassword_sha256 = [\"{digest}\"]\n");
    assert!(NodeConfig::parse(&(beyond + &user), "node.toml").is_ok());
}

#[test]
fn members_are_checked_against_each_other() {
    let member = |id: u32, incarnation: &str, port: u16| {
        format!(
            "[[member]]\nid = {id}\nname = \"n{id}\"\nrole = \"voter\"\nincarnation = \"{incarnation}\"\n\
             public_key = \"{}\"\npeer = \"10.0.0.1:{port}\"\nclient = \"10.0.0.1:{}\"\nhttp = \"x:0\"\n",
            "0a".repeat(32),
            port + 1
        )
    };
    let text = "cluster_uuid = \"0123456789abcdef0123456789abcdef\"\n".to_owned()
        + &member(1, "00000000000000aa", 7380)
        + &member(1, "xyz", 7381);
    insta::assert_snapshot!(Members::parse(&text, "members.toml").unwrap_err(), @r#"
    members.toml:10:8: http of n1 is "x:0"
        hint: written like "10.0.0.11:7380"
    members.toml:12:6: id 1 of n1 is taken by n1
        hint: no two members share it
    members.toml:13:8: name n1 of n1 is taken by n1
        hint: no two members share it
    members.toml:15:15: incarnation of n1 is "xyz"
        hint: 16 lower-case hex digits, as `paxos-node identity` prints
    members.toml:16:14: public_key 0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a of n1 is taken by n1
        hint: no two members share it
    members.toml:17:8: peer 10.0.0.1:7381 of n1 is taken by n1
        hint: no two members share it
    members.toml:19:8: http of n1 is "x:0"
        hint: written like "10.0.0.11:7380"
    "#);
    let none = "cluster_uuid = \"0123456789abcdef0123456789abcdef\"\nmember = []\n";
    insta::assert_snapshot!(Members::parse(none, "members.toml").unwrap_err(), @r"
    members.toml:2:10: 0 voters
        hint: 1 to 9 are needed
    ");
}
