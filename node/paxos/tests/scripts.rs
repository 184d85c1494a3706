//! Golden scenarios: each file in `scripts/` is one story, named after what it shows. The recorded
//! answers are part of the file; `UPDATE_SCRIPTS=1` writes them anew, to be read as a diff: keep a
//! changed answer only if you know why it changed.

mod harness;

use harness::script::{parse, play, write};

#[test]
fn every_script_plays_as_recorded() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/scripts");
    let mut paths: Vec<_> = std::fs::read_dir(folder)
        .expect("the scripts' folder")
        .map(|entry| entry.expect("its entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "txt"))
        .collect();
    paths.sort();
    assert!(paths.len() >= 100, "only {} scripts were found", paths.len());
    let update = std::env::var_os("UPDATE_SCRIPTS").is_some();
    let mut changed = Vec::new();
    for path in &paths {
        let name = path.file_stem().expect("a file name").to_string_lossy().into_owned();
        let recorded = std::fs::read_to_string(path).expect("read the script");
        let (played, violation) = play(&parse(&recorded), None);
        let text = write(&played);
        if update {
            std::fs::write(path, &text).expect("write the script");
        } else if text != recorded {
            changed.push(format!("{name}:\n{}", first_difference(&recorded, &text)));
        }
        changed.extend(violation.map(|violation| format!("{name}: VIOLATION: {violation}")));
    }
    assert!(
        changed.is_empty(),
        "these went another way (UPDATE_SCRIPTS=1 cargo test -p paxos --test scripts records it):\n{}",
        changed.join("\n")
    );
}

fn first_difference(recorded: &str, played: &str) -> String {
    let recorded = recorded.lines().chain(std::iter::repeat("(nothing more)"));
    let mut lines = recorded.zip(played.lines().chain(["(nothing more)"])).enumerate();
    let difference = lines.find(|(_, (recorded, played))| recorded != played);
    difference.map_or(String::new(), |(number, (recorded, played))| {
        format!("  line {}\n  recorded: {recorded}\n  now:      {played}", number + 1)
    })
}
