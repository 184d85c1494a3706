//! Formatted once, read whole or not at all, and counted at every start.

use config::{Behaviour, Listen, Security, Trace};

use super::*;

fn config(data_dir: PathBuf) -> NodeConfig {
    let address = "127.0.0.1:7380".parse().expect("address");
    NodeConfig {
        schema: 1,
        cluster: "test".to_owned(),
        cluster_uuid: "00112233-4455-6677-8899-AABBCCDDEEFF".to_owned(),
        id: 3,
        name: "n3".to_owned(),
        data_dir,
        listen: Listen { client: address, peer: address, http: address },
        security: Security::default(),
        users: Vec::new(),
        behaviour: Behaviour::default(),
        trace: Trace::default(),
    }
}

fn fresh() -> (tempfile::TempDir, NodeConfig) {
    let dir = tempfile::tempdir().expect("temporary directory");
    let config = config(dir.path().join("deep/data"));
    (dir, config)
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("metadata").mode() & 0o7777
}

#[test]
fn what_is_formatted_is_loaded() {
    let (_dir, config) = fresh();
    let public = format(&config).expect("format");
    let identity = load(&config).expect("load");
    assert_eq!(identity.public(), public);
    assert_eq!(public.id, 3);
    assert_eq!(public.cluster_uuid, "00112233445566778899aabbccddeeff");
    assert_eq!((public.incarnation.len(), public.public_key.len()), (16, 64));
    assert_eq!(mode(&config.data_dir), 0o700);
    assert_eq!(mode(&config.data_dir.join(IDENTITY)), 0o600);
    assert_eq!(mode(&config.data_dir.join(STARTS)), 0o600);
    let json = serde_json::to_string(&public).expect("JSON");
    assert_eq!(serde_json::from_str::<Public>(&json).expect("JSON"), public);
}

/// The private half is in one file and nowhere else.
#[test]
fn the_private_key_is_not_shown() {
    let (_dir, config) = fresh();
    let public = format(&config).expect("format");
    let identity = load(&config).expect("load");
    let secret = hex(&identity.key.pkcs8()[16..]);
    for shown in [format!("{identity:?}"), format!("{public:?}"), format!("{:?}", identity.key)] {
        assert!(!shown.contains(&secret), "{shown}");
    }
}

/// PITFALLS 8 and 27: two formats are two nodes, also of one machine with one id.
#[test]
fn no_two_formats_are_alike() {
    let ((_one, one), (_two, two)) = (fresh(), fresh());
    let (one, two) = (format(&one).expect("format"), format(&two).expect("format"));
    assert_ne!(one.incarnation, two.incarnation);
    assert_ne!(one.public_key, two.public_key);
}

#[test]
fn a_directory_is_formatted_once() {
    let (_dir, config) = fresh();
    format(&config).expect("format");
    let before = fs::read(config.data_dir.join(IDENTITY)).expect("read");
    let error = format(&config).expect_err("a second time").to_string();
    assert!(error.contains("already holds") && error.contains("formatted once"), "{error}");
    assert_eq!(fs::read(config.data_dir.join(IDENTITY)).expect("read"), before);
}

/// Whatever a node may have left: each by itself is reason enough.
#[test]
fn any_trace_of_a_former_node_is_refused() {
    for name in ["journal", "00000001.segment", "snapshots", STARTS, "identity", "unknown"] {
        let (_dir, config) = fresh();
        fs::create_dir_all(&config.data_dir).expect("create");
        fs::write(config.data_dir.join(name), "").expect("write");
        let error = format(&config).expect_err("refused");
        assert!(matches!(error, IdentityError::AlreadyFormatted { .. }), "{name}: {error}");
        assert!(error.to_string().contains(&format!("`{name}`")), "{error}");
    }
    let (_dir, config) = fresh();
    fs::create_dir_all(config.data_dir.join("trace")).expect("create");
    fs::create_dir_all(config.data_dir.join("lost+found")).expect("create");
    fs::write(config.data_dir.join("node.toml"), "").expect("write");
    format(&config).expect("these are harmless");
}

#[test]
fn an_interrupted_format_is_told_from_a_lost_disk() {
    let (_dir, config) = fresh();
    fs::create_dir_all(&config.data_dir).expect("create");
    let unformatted = load(&config).expect_err("nothing there").to_string();
    assert!(unformatted.contains("never formatted") && unformatted.contains("member replace"));
    fs::write(config.data_dir.join(PARTIAL), "{").expect("write");
    for error in [load(&config).err(), format(&config).err()] {
        let error = error.expect("half a format");
        assert!(matches!(error, IdentityError::PartlyFormatted { .. }), "{error}");
    }
}

/// PITFALLS 58: cut at each byte, flip each bit: never another identity, and nothing is deleted.
#[test]
fn a_damaged_identity_is_refused_and_kept() {
    let (_dir, config) = fresh();
    format(&config).expect("format");
    let path = config.data_dir.join(IDENTITY);
    let good = fs::read(&path).expect("read");
    let refused = |bytes: &[u8], what: String| {
        // In place: some file systems flush a file that was truncated and written again.
        let file = OpenOptions::new().write(true).open(&path).expect("open");
        file.write_all_at(bytes, 0).expect("write");
        file.set_len(bytes.len() as u64).expect("cut");
        let error = load(&config).err().unwrap_or_else(|| panic!("{what} was accepted"));
        assert!(matches!(error, IdentityError::Corrupt { .. }), "{what}: {error}");
        assert_eq!(fs::read(&path).expect("read"), bytes, "the damaged file was touched");
    };
    for len in 0..good.len() {
        refused(&good[..len], format!("cut at {len}"));
    }
    for bit in 0..good.len() * 8 {
        let mut bytes = good.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        refused(&bytes, format!("bit {bit} flipped"));
    }
    refused(&[&good[..], &good[..]].concat(), "twice".to_owned());
    refused(&vec![b'x'; 1 << 20], "a megabyte".to_owned());
    fs::write(&path, &good).expect("write");
    load(&config).expect("the good one again");
}

#[test]
fn another_nodes_data_is_refused() {
    let (_dir, config) = fresh();
    format(&config).expect("format");
    let foreign = NodeConfig { cluster_uuid: "ff".repeat(16), ..config.clone() };
    let error = load(&foreign).expect_err("another cluster").to_string();
    assert!(error.contains("00112233445566778899aabbccddeeff") && error.contains("ffff"));
    let other = NodeConfig { id: 4, ..config.clone() };
    let error = load(&other).expect_err("another id").to_string();
    assert!(error.contains("is of node n3, the configuration says n4"), "{error}");
    let nonsense = NodeConfig { cluster_uuid: "demo".to_owned(), ..config };
    assert!(matches!(load(&nonsense), Err(IdentityError::BadClusterUuid { .. })));
    assert!(matches!(format(&nonsense), Err(IdentityError::BadClusterUuid { .. })));
}

#[test]
fn a_key_that_others_may_read_is_refused() {
    let (_dir, config) = fresh();
    format(&config).expect("format");
    let path = config.data_dir.join(IDENTITY);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).expect("chmod");
    let error = load(&config).expect_err("refused").to_string();
    assert!(error.contains("mode 0640") && error.contains("chmod 600"), "{error}");
}

#[test]
fn an_identity_of_a_newer_release_is_named() {
    let (_dir, config) = fresh();
    format(&config).expect("format");
    let path = config.data_dir.join(IDENTITY);
    let line = r#"{"schema":2,"something":"else"}"#;
    fs::write(&path, format!("{line}\n{}\n", hex(&Sha256::digest(line)))).expect("write");
    let error = load(&config).expect_err("refused").to_string();
    for words in
        [&path.display().to_string(), "schema 2, this one reads up to 1", "start that release"]
    {
        assert!(error.contains(words), "`{words}` is missing: {error}");
    }
}

/// One start of a newer release is enough: the other slot, which this one could read, is old news.
#[test]
fn starts_of_a_newer_release_are_named_and_left_alone() {
    let (_dir, config) = fresh();
    format(&config).expect("format");
    begin_process(&config.data_dir).expect("a first start");
    let path = config.data_dir.join(STARTS);
    let good = fs::read(&path).expect("read");
    for slot in [0, usize::try_from(SLOT_LEN).expect("small")] {
        let mut bytes = good.clone();
        let newer = STARTS_VERSION + 1;
        // All else may be laid out in another way.
        bytes[slot..slot + STARTS_LEN].fill(7);
        bytes[slot + STARTS_VERSION_AT..][..2].copy_from_slice(&[newer, !newer]);
        fs::write(&path, &bytes).expect("write");
        let error = begin_process(&config.data_dir).expect_err("refused").to_string();
        let name = path.display().to_string();
        for words in [&name, "slot version 3, this one reads up to 2", "start that release"] {
            assert!(error.contains(words), "`{words}` is missing: {error}");
        }
        assert_eq!(fs::read(&path).expect("read"), bytes, "it was touched");
    }
}

/// A start that fails on the way to its first promise is no start.
#[test]
fn a_start_is_counted_only_when_it_is_told() {
    let (_dir, config) = fresh();
    format(&config).expect("format");
    let next = || next_process(&config.data_dir).expect("next");
    assert_eq!((next().starts, next().starts), (1, 1));
    let process = next();
    count_process(&config.data_dir, &process).expect("count");
    assert_eq!((next().starts, next().former[0]), (2, process.nonce));
}

/// PITFALLS 10: each start counts one more; a torn write of the count costs nothing but itself.
#[test]
fn starts_are_counted() {
    let (_dir, config) = fresh();
    format(&config).expect("format");
    let begin = || begin_process(&config.data_dir);
    let (first, second) = (begin().expect("first"), begin().expect("second"));
    assert_eq!((first.starts, second.starts), (1, 2));
    assert_ne!(first.nonce, second.nonce);
    assert_eq!(second.former[0], first.nonce);
    let ancestors = [1, 2, 3].map(|starts| second.ancestor(starts));
    assert_eq!(ancestors, [Some(first.nonce), Some(second.nonce), None]);

    let path = config.data_dir.join(STARTS);
    let good = fs::read(&path).expect("read");
    // The third start writes the slot of the first; wherever that tears, the next one counts 3.
    for torn in 0..STARTS_VERSION_AT + 2 {
        let mut bytes = good.clone();
        let slot = usize::try_from(SLOT_LEN).expect("small");
        bytes[slot + torn..slot + STARTS_VERSION_AT + 2].fill(0xff);
        fs::write(&path, &bytes).expect("write");
        let third = begin().expect("third");
        assert_eq!(third.starts, 3, "torn at {torn}");
        assert_eq!(third.former[..2], [second.nonce, first.nonce], "torn at {torn}");
    }
    fs::write(&path, vec![0; good.len()]).expect("write");
    assert!(matches!(begin(), Err(IdentityError::Corrupt { .. })));
}
