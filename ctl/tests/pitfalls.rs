//! The table of pitfalls is true: every number has its row, and every test, script and mutant that
//! it names exists.

use std::path::Path;

const LAST: usize = 117;

#[test]
fn no_pitfall_is_without_its_test() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
    let read = |path: &str| {
        std::fs::read_to_string(root.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
    };
    let mutants = read("node/paxos/src/mutants.rs") + &read("node/paxos/tests/harness/foul.rs");
    let table = read("ctl/tests/pitfalls.md");
    let rows: Vec<&str> =
        table.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| no.")).collect();
    let mut open = Vec::new();
    for (index, row) in rows.iter().enumerate() {
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        let [number, fault, held] = cells[..] else { panic!("three cells: {row}") };
        assert_eq!(number, (index + 1).to_string(), "{row}");
        assert!(!fault.is_empty(), "{row}");
        for holder in held.split(" · ") {
            let name = holder.split('`').nth(1).unwrap_or_default();
            if holder.starts_with("script ") {
                read(&format!("node/paxos/tests/scripts/{name}.txt"));
            } else if holder.starts_with("mutant ") {
                assert!(mutants.contains(&format!(" {name},")), "no mutant {name}: {row}");
            } else if let Some((file, test)) = name.split_once("::") {
                assert!(read(file).contains(&format!("fn {test}(")), "{file} has no {test}: {row}");
            } else if holder.starts_with("not yet: ") {
                open.push(format!("{number} ({fault}): {holder}"));
            } else {
                assert!(holder.starts_with("cannot happen: "), "{row}");
            }
        }
    }
    assert_eq!(rows.len(), LAST, "one row for each pitfall");
    eprintln!("{} of {LAST} pitfalls are held, {} not yet", LAST - open.len(), open.len());
    open.iter().for_each(|line| eprintln!("  {line}"));
}
