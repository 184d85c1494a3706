//! How long a connection may stay without having said who it is.

mod common;

use std::time::Duration;

use common::{SOON, start};
use config::{User, UserRole};
use proof::connection::Connection;
use proof::resp::Reply;
use sha2::{Digest, Sha256};

/// Longer than anybody may take to authenticate.
const BEYOND: Duration = Duration::from_secs(12);

fn user() -> User {
    let digest = Sha256::digest(b"secret");
    User {
        name: "app".to_owned(),
        role: UserRole::Rw,
        password_sha256: vec![digest.iter().map(|byte| format!("{byte:02x}")).collect()],
    }
}

/// Clients reset the connections that they give back to their pool, however old these are.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reset_gives_the_time_to_authenticate_again() {
    let cluster = start(1, |spec| spec.users = vec![user()]).await;
    let address = cluster.client_addresses().remove(0);
    let mut connection = Connection::open(&address, SOON).await.unwrap();
    let mut silent = Connection::open(&address, SOON).await.unwrap();
    let login = [&b"AUTH"[..], b"app", b"secret"];
    let is = |reply: &Reply, word: &str| matches!(reply, Reply::Simple(text) if text == word);
    assert!(is(&connection.call(&login).await.unwrap(), "OK"));
    tokio::time::sleep(BEYOND).await;
    assert!(is(&connection.call(&[b"RESET"]).await.unwrap(), "RESET"));
    assert!(is(&connection.call(&login).await.unwrap(), "OK"));
    assert!(is(&connection.call(&[b"PING"]).await.unwrap(), "PONG"));
    assert!(silent.call(&[b"PING"]).await.is_err(), "who never says who it is is closed");
}
