//! The table of the rules of leases is true: every test, script and mutant that it names exists.

use std::path::Path;

#[test]
fn no_rule_of_leases_is_without_its_test() {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let root = tests.ancestors().nth(3).expect("the workspace");
    let read = |path: &Path| {
        let text = std::fs::read_to_string(path);
        text.unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    };
    let mutants = read(&tests.join("../src/mutants.rs")) + &read(&tests.join("harness/foul.rs"));
    let table = read(&tests.join("leases.md"));
    let rows = table.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| rule"));
    let (mut held, mut open) = (0, Vec::new());
    for row in rows {
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        let [rule, holders] = cells[..] else { panic!("two cells: {row}") };
        for holder in holders.split(" · ") {
            let name = holder.split('`').nth(1).unwrap_or_default();
            if holder.starts_with("script ") {
                read(&tests.join(format!("scripts/{name}.txt")));
            } else if holder.starts_with("mutant ") {
                assert!(mutants.contains(&format!(" {name},")), "no mutant {name}: {row}");
            } else if let Some((file, test)) = name.split_once("::") {
                let text = read(&root.join(file));
                assert!(text.contains(&format!("fn {test}(")), "{file} has no {test}: {row}");
            } else {
                assert!(holder.starts_with("not yet: "), "{row}");
                open.push(format!("{rule}: {holder}"));
            }
        }
        held += 1;
    }
    assert!(held > 30, "{held} rules");
    println!("{} rules are held, {} not yet: {open:?}", held - open.len(), open.len());
}
