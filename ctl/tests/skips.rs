//! `.ci/skips`: what was skipped is listed at the end, and is a failure where it is asked for.

use std::process::Command;

#[test]
fn a_skipped_test_is_a_failure_where_all_are_required() {
    // What is required, what is excused, what the tests say and how they end; then how we end.
    let cases = [
        ("", "", "echo fine", 0),
        ("", "", "echo skipped: no redis", 0),
        ("all", "", "echo fine", 0),
        ("all", "", "echo skipped: no redis", 1),
        ("all", "no docker", "echo skipped: no docker here", 0),
        ("all", "no docker", "echo skipped: no docker here; echo skipped: no redis", 1),
        ("none", "", "echo skipped: no redis", 0),
        ("all", "no redis", "echo skipped: no redis; exit 101", 101),
        ("", "", "echo fine; exit 101", 101),
    ];
    for (required, excused, tests, expected) in cases {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../.ci/skips");
        let mut run = Command::new(script);
        run.args(["sh", "-c", tests]);
        run.env("PAXOS_REQUIRE", required).env("PAXOS_EXCUSED", excused);
        let output = run.output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        let case = format!("{required:?} {excused:?} `{tests}`:\n{said}");
        assert_eq!(output.status.code(), Some(expected), "{case}");
        let listed = said.lines().filter(|line| line.trim().starts_with("1 no ")).count();
        assert!(listed >= tests.matches("skipped: ").count(), "{case}");
    }
}
