//! Who leads while something is wrong, and stays wrong: within a few timeouts somebody does who can
//! choose, and nobody takes turns (PITFALLS 19, 20, 59, 64, 103). What is counted is ballots.
//!
//! Each trouble begins under a leader, n1, and with leases or without. The scripts named
//! `partial_partition_…`, `full_leader_yields` and `lease_survives_a_paused_follower` tell some of
//! these stories step by step.

mod harness;

use harness::script::{parse, play};

/// For so long nothing changes any more.
const QUIET_MS: u64 = 10_000;

struct Trouble {
    name: &'static str,
    /// Of the cluster, besides its leader and its leases.
    cluster: &'static str,
    begins: &'static str,
    settles_ms: u64,
    /// Ballots begun until it is settled; 0: n1 goes on.
    ballots_max: usize,
    /// Who may not lead behind it.
    not: &'static [&'static str],
}

const TROUBLES: &[Trouble] = &[
    Trouble {
        name: "quorum loss: all links are down but those of n3",
        cluster: "nodes=5",
        begins: "cut 1-2 1-4 1-5 2-4 2-5 4-5",
        settles_ms: 2_000,
        ballots_max: 3,
        not: &["n1", "n2", "n4", "n5"],
    },
    Trouble {
        name: "constrained election: only n3 reaches a quorum, and its log is behind",
        cluster: "nodes=5",
        begins: "cut 1-3\npropose 1 y\nrun 30ms\ncut 1-2 1-4 1-5 2-4 2-5 4-5",
        settles_ms: 2_000,
        ballots_max: 3,
        not: &["n1", "n2", "n4", "n5"],
    },
    Trouble {
        name: "chained: n1 and n3 do not see each other, n2 sees both",
        cluster: "nodes=3",
        begins: "cut 1-3",
        settles_ms: 2_000,
        ballots_max: 0,
        not: &["n2", "n3"],
    },
    Trouble {
        name: "chained, five in a row: only the middle ones see a quorum",
        cluster: "nodes=5",
        begins: "cut 1-3 1-4 1-5 2-4 2-5 3-5",
        settles_ms: 2_000,
        ballots_max: 4,
        not: &["n1", "n5"],
    },
    Trouble {
        name: "one way: nobody hears the leader",
        cluster: "nodes=3",
        begins: "cut 1>2 1>3",
        settles_ms: 2_000,
        ballots_max: 3,
        not: &["n1"],
    },
    Trouble {
        name: "one way: the leader hears nobody",
        cluster: "nodes=3",
        begins: "cut 2>1 3>1",
        settles_ms: 2_000,
        ballots_max: 3,
        not: &["n1"],
    },
    Trouble {
        name: "one way: a follower does not hear the leader",
        cluster: "nodes=3",
        begins: "cut 1>2",
        settles_ms: 2_000,
        ballots_max: 0,
        not: &["n2", "n3"],
    },
    Trouble {
        name: "one way: the leader does not hear a follower",
        cluster: "nodes=3",
        begins: "cut 2>1",
        settles_ms: 2_000,
        ballots_max: 0,
        not: &["n2", "n3"],
    },
    Trouble {
        name: "one way: nobody hears a follower",
        cluster: "nodes=3",
        begins: "cut 2>1 2>3",
        settles_ms: 2_000,
        ballots_max: 0,
        not: &["n2", "n3"],
    },
    Trouble {
        name: "one way: a follower hears nobody",
        cluster: "nodes=3",
        begins: "cut 1>2 3>2",
        settles_ms: 2_000,
        ballots_max: 0,
        not: &["n2", "n3"],
    },
    Trouble {
        name: "a follower is very slow",
        cluster: "nodes=3 slow=3:400",
        begins: "",
        settles_ms: 4_000,
        ballots_max: 0,
        not: &["n2", "n3"],
    },
    Trouble {
        name: "the leader is very slow: it can hold no lease, and would make everybody wait",
        cluster: "nodes=3 slow=1:150",
        begins: "",
        settles_ms: 5_000,
        ballots_max: 6,
        not: &[],
    },
    Trouble {
        name: "a follower is paused",
        cluster: "nodes=3",
        begins: "pause 2",
        settles_ms: 1_000,
        ballots_max: 0,
        not: &["n2", "n3"],
    },
    Trouble {
        name: "the leader is paused",
        cluster: "nodes=3",
        begins: "pause 1",
        settles_ms: 2_000,
        ballots_max: 3,
        not: &["n1"],
    },
    Trouble {
        name: "the leader's disk is full, or slow",
        cluster: "nodes=3",
        begins: "grey 1",
        settles_ms: 2_000,
        ballots_max: 3,
        not: &["n1"],
    },
    Trouble {
        name: "a follower's disk is full, or slow",
        cluster: "nodes=3",
        begins: "grey 2",
        settles_ms: 1_000,
        ballots_max: 0,
        not: &["n2", "n3"],
    },
    Trouble {
        name: "the disks of two of five are full, the leader's among them",
        cluster: "nodes=5",
        begins: "grey 1\ngrey 4",
        settles_ms: 2_000,
        ballots_max: 4,
        not: &["n1", "n4"],
    },
    Trouble {
        name: "200 ms there and back, by the timing of the preset wan",
        cluster: "nodes=3 timing=wan delay=100",
        begins: "",
        settles_ms: 4_000,
        ballots_max: 0,
        not: &["n2", "n3"],
    },
    Trouble {
        name: "200 ms there and back, and the leader is gone",
        cluster: "nodes=5 timing=wan delay=100",
        begins: "crash 1",
        settles_ms: 10_000,
        ballots_max: 4,
        not: &["n1"],
    },
];

/// By which rule it is decided who leads.
#[derive(Clone, Copy, Debug)]
enum Rule {
    Ballot {
        lease_ms: u64,
    },
    /// The leader has the highest id, so each trouble is met as in a mirror: n1 for the last node.
    HighestId,
}

/// By the highest-id rule two heartbeats are silence enough, while it takes longer to notice that one
/// is not heard oneself: whoever has just lost its links may try, and the others begin once more.
const HASTE: usize = 2;

#[test]
fn in_every_trouble_somebody_leads_and_nobody_takes_turns() {
    let mut wrong = Vec::new();
    for trouble in TROUBLES {
        let lease_ms = if trouble.cluster.contains("wan") { 600 } else { 100 };
        let leases = [0, lease_ms].map(|lease_ms| Rule::Ballot { lease_ms });
        for rule in leases.into_iter().chain([Rule::HighestId]) {
            match outcome(trouble, rule) {
                Ok((leader, ballots)) => {
                    println!("{}, {rule:?}: {leader}, {ballots} ballots", trouble.name);
                }
                Err(text) => wrong.push(format!("{}, {rule:?}: {text}", trouble.name)),
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Links one way, in a ring: each hears one and is heard by the other, so nobody reaches a quorum both
/// ways and nobody can lead. They do not wear each other out by trying, and go on when it is over.
#[test]
fn where_nobody_can_lead_nobody_tries() {
    for options in ["lease=0 leader=1", "lease=100 leader=1", "strategy=highest-id leader=3"] {
        let script = format!(
            "cluster nodes=3 {options}\nrun 100ms\ncut 1>2 2>3 3>1\nrun 3000ms\n---\n\n\
             run {QUIET_MS}ms\nstatus\n---\n\nheal\nrun 2000ms\nstatus\n---\n\n"
        );
        let answers = played(&script).expect("no violation");
        let (meanwhile, healed) = (answers[1].join("\n"), answers[2].join("\n"));
        let busy = [" prepares ", " leads ", " stops "].iter().any(|word| meanwhile.contains(word));
        assert!(!busy, "{meanwhile}");
        assert!(healed.contains(" leads "), "{healed}");
        assert!(healed.matches(" prepares ").count() <= 2, "{healed}");
    }
}

/// The same with the ids from the other end: 1 for the last of so many nodes, 2 for the one before.
fn mirrored(text: &str, nodes: u32) -> String {
    let mirror = |word: &str| {
        if word.ends_with("ms") {
            return word.to_owned();
        }
        let (option, ids) = word.split_once('=').map_or(("", word), |(option, ids)| (option, ids));
        match option {
            "" => {}
            "slow" => {
                let (id, ms) = ids.split_once(':').expect("slow=node:ms");
                let id: u32 = id.parse().expect("a node's number");
                return format!("slow={}:{ms}", nodes + 1 - id);
            }
            _ => return word.to_owned(),
        }
        let digit = |c: char| c.to_digit(10).and_then(|id| char::from_digit(nodes + 1 - id, 10));
        ids.chars().map(|c| digit(c).unwrap_or(c)).collect()
    };
    let line = |line: &str| line.split(' ').map(mirror).collect::<Vec<String>>().join(" ");
    text.lines().map(line).collect::<Vec<String>>().join("\n")
}

/// Who leads in the end, and how many ballots were begun.
fn outcome(trouble: &Trouble, rule: Rule) -> Result<(String, usize), String> {
    let Trouble { cluster, begins, settles_ms, not, .. } = trouble;
    let nodes: u32 = if cluster.contains("nodes=5") { 5 } else { 3 };
    let (cluster, begins, first, options) = match rule {
        Rule::Ballot { lease_ms } => {
            ((*cluster).to_owned(), (*begins).to_owned(), 1, format!("lease={lease_ms}"))
        }
        Rule::HighestId => (
            mirrored(cluster, nodes),
            mirrored(begins, nodes),
            nodes,
            "strategy=highest-id".to_owned(),
        ),
    };
    let not: Vec<String> = match rule {
        Rule::Ballot { .. } => not.iter().map(|id| (*id).to_owned()).collect(),
        Rule::HighestId => not.iter().map(|id| mirrored(id, nodes)).collect(),
    };
    let ballots_max = match rule {
        Rule::Ballot { .. } => trouble.ballots_max,
        Rule::HighestId => trouble.ballots_max + HASTE,
    };
    let mut script = format!(
        "cluster {cluster} {options} leader={first}\nrun 100ms\n---\n\n{begins}\n\
         run {settles_ms}ms\n---\n\nrun {QUIET_MS}ms\n---\n\nstatus\n---\n\n"
    );
    let answers = played(&script)?;
    let count =
        |lines: &[String], word: &str| lines.iter().filter(|line| line.contains(word)).count();
    let ballots = count(&answers[1], " prepares ");
    if ballots > ballots_max {
        return Err(format!(
            "{ballots} ballots, at most {ballots_max}:\n{}",
            answers[1].join("\n")
        ));
    }
    for word in [" prepares ", " leads ", " stops "] {
        if count(&answers[2], word) > 0 {
            return Err(format!("it does not come to rest:\n{}", answers[2].join("\n")));
        }
    }
    let leaders: Vec<&str> = answers[3]
        .iter()
        // One that is paused does not know better.
        .filter(|line| line.contains(" leads "))
        .filter(|line| {
            let is_paused = begins.contains(&format!("pause {first}"));
            !(is_paused && line.starts_with(&format!("n{first} ")))
        })
        .filter_map(|line| line.split(' ').next())
        .collect();
    let [leader] = leaders[..] else { return Err(format!("{leaders:?} lead")) };
    if not.iter().any(|node| node == leader) {
        return Err(format!("{leader} leads"));
    }
    // And it can choose.
    let place = leader.trim_start_matches('n');
    script.push_str(&format!("propose {place} z\nrun 1000ms\n---\n\n"));
    let answers = played(&script)?;
    let applied = answers[4]
        .iter()
        .any(|line| line.starts_with(&format!("{leader} applies")) && line.ends_with(":z"));
    if !applied {
        return Err(format!("{leader} cannot choose:\n{}", answers[4].join("\n")));
    }
    Ok((leader.to_owned(), ballots))
}

fn played(script: &str) -> Result<Vec<Vec<String>>, String> {
    match play(&parse(script), None) {
        (_, Some(violation)) => Err(violation),
        (blocks, None) => Ok(blocks.into_iter().map(|block| block.answer).collect()),
    }
}
