//! The table of all commands: what `COMMAND` tells, what the door checks, and who reads the
//! arguments. Facts (arity, flags, keys, tips) are those of Redis 7.0, so that client libraries
//! treat our commands exactly as they treat its own. Two rooms: `data` has what goes to the store,
//! `door` what is answered at once.

mod data;
mod door;

use std::sync::LazyLock;

use super::spec::Spec;

/// All commands; first those of the door, then those of the store, each by name.
pub static COMMANDS: &[Spec] = &{
    let mut all = [data::COMMANDS[0]; data::COMMANDS.len() + door::COMMANDS.len()];
    let mut index = 0;
    while index < door::COMMANDS.len() {
        all[index] = door::COMMANDS[index];
        index += 1;
    }
    let mut index = 0;
    while index < data::COMMANDS.len() {
        all[door::COMMANDS.len() + index] = data::COMMANDS[index];
        index += 1;
    }
    all
};

/// The command of this name, in any case.
pub fn lookup(name: &[u8]) -> Option<&'static Spec> {
    let mut lower = [0u8; NAME_BYTES_MAX];
    let lower = lower.get_mut(..name.len())?;
    lower.copy_from_slice(name);
    lower.make_ascii_lowercase();
    let mut place = hash(lower);
    loop {
        let spec = INDEX[place % INDEX_SIZE]?;
        if spec.name.as_bytes() == lower {
            return Some(spec);
        }
        place += 1;
    }
}

const NAME_BYTES_MAX: usize = 16;
const INDEX_SIZE: usize = 1024;

/// Open addressing, mostly empty: one comparison a lookup, as a rule.
static INDEX: LazyLock<[Option<&'static Spec>; INDEX_SIZE]> = LazyLock::new(|| {
    let mut index = [None; INDEX_SIZE];
    for spec in COMMANDS {
        assert!(spec.name.len() <= NAME_BYTES_MAX, "{} is too long for lookup", spec.name);
        let mut place = hash(spec.name.as_bytes());
        while index[place % INDEX_SIZE].is_some() {
            place += 1;
        }
        index[place % INDEX_SIZE] = Some(spec);
    }
    index
});

/// FNV-1a.
fn hash(name: &[u8]) -> usize {
    let mix = |hash: u32, byte: &u8| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
    let hash = name.iter().fold(0x811c_9dc5, mix);
    (hash ^ (hash >> 15)) as usize
}

#[cfg(test)]
mod tests {
    use super::super::spec::Handler;
    use super::*;

    #[test]
    fn names_are_sorted_and_found() {
        assert!(data::COMMANDS.is_sorted_by_key(|spec| spec.name));
        assert!(door::COMMANDS.is_sorted_by_key(|spec| spec.name));
        for spec in COMMANDS {
            let found = lookup(spec.name.to_uppercase().as_bytes()).expect("a command is found");
            assert_eq!(found.name, spec.name);
            assert!(!spec.summary.is_empty(), "{} has no summary", spec.name);
            let prefix = format!("{}|", spec.name);
            assert!(spec.subcommands.iter().all(|sub| sub.name.starts_with(&prefix)));
        }
        assert!(lookup(b"nosuch").is_none());
        assert!(lookup(b"").is_none());
        assert!(lookup(&[b'g'; 300]).is_none());
    }

    /// Every argument that a parser may index is covered by the arity.
    #[test]
    fn the_shortest_call_is_parsed() {
        for spec in COMMANDS.iter().flat_map(|spec| std::iter::once(spec).chain(spec.subcommands)) {
            let argv = vec![&b"1"[..]; spec.arity.unsigned_abs() as usize];
            match spec.handler {
                Handler::Write(parse) => drop(parse(&argv)),
                Handler::Read(parse) => drop(parse(&argv)),
                Handler::Answer(_) | Handler::Transaction => {}
            }
            let keys = spec.keys(&argv).count();
            assert_eq!(keys > 0, !spec.keys.is_empty(), "{}", spec.name);
        }
    }
}
