//! The first start of a node whose `format` was cut short, on a real process.

mod common;

use std::fs;

use common::{SOON, TestCluster, call, spec, until};
use ctl::local::{LocalCluster, last_lines};
use tempfile::TempDir;

/// `format` made the identity and was cut off before the journal. No process has promised anything
/// here, so the first start that comes as far makes it: also when starts before it failed on the way.
#[tokio::test]
async fn a_format_that_was_cut_short_is_finished() {
    let dir = TempDir::with_prefix("paxos-test-").unwrap();
    let cluster = LocalCluster::prepare(spec(1, &dir)).unwrap();
    let mut cluster = TestCluster { cluster, dir };
    let data = cluster.node(1).data_dir();
    fs::remove_dir_all(data.join("journal")).unwrap();
    let in_the_way = data.join("snapshots");
    let _ = fs::remove_dir_all(&in_the_way);
    fs::write(&in_the_way, b"somebody's file").unwrap();

    for _ in 0..2 {
        cluster.node(1).start().unwrap();
        until("the node giving up", async || cluster.node(1).has_ended()).await;
        let node = cluster.node(1);
        assert!(node.exit_status().is_some_and(|status| !status.success()));
        let said = last_lines(&node.log_path(), 10);
        assert!(said.contains("snapshots"), "{said}");
    }

    fs::remove_file(&in_the_way).unwrap();
    cluster.node(1).start().unwrap();
    cluster.wait_for_leader(SOON, |_| true).await.unwrap();
    let mut client = proof::client::Client::new(cluster.target(), 0);
    call(&mut client, &[b"SET", b"k", b"v"]).await;
    cluster.node(1).kill();

    // From now on there is something to lose.
    fs::remove_dir_all(data.join("journal")).unwrap();
    cluster.node(1).start().unwrap();
    until("the node refusing to begin anew", async || cluster.node(1).has_ended()).await;
    let said = last_lines(&cluster.node(1).log_path(), 10);
    assert!(said.contains("journal"), "{said}");
}
