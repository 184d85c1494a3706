//! Servers that speak the Redis protocol: ours, and plain Redis.

use std::time::{Duration, Instant};

use bytes::BytesMut;
use rand::SeedableRng;
use rand::rngs::SmallRng;

use super::{Failed, Measured, Stopwatch, Timing, Workload, is_read, random_key, together};
use crate::connection::Connection;
use crate::resp::{self, Reply};

const PATIENCE: Duration = Duration::from_secs(10);

/// Measures the server at `address`, which must answer itself: a redirect is a failure.
pub fn measure(address: &str, workload: Workload, timing: Timing) -> Result<Measured, Failed> {
    let address = address.to_owned();
    super::on_one_thread(async move {
        let clients = (0..workload.clients)
            .map(|index| client(address.clone(), index as u64, workload, timing))
            .collect();
        together(clients, timing).await
    })
}

/// The node of the cluster that answers a write itself, starting from any.
pub async fn leader(nodes: &[String]) -> Result<String, Failed> {
    let mut last = Failed::new("", "no node was given");
    for node in nodes {
        let mut address = node.clone();
        for _ in 0..3 {
            match probe(&address).await {
                Ok(Reply::Error(text)) => {
                    let moved = Reply::Error(text.clone());
                    match moved.moved_to() {
                        Some(next) => address = next.to_owned(),
                        None => {
                            last = Failed::new(&address, text);
                            break;
                        }
                    }
                }
                Ok(_) => return Ok(address),
                Err(failed) => {
                    last = failed;
                    break;
                }
            }
        }
    }
    Err(last)
}

async fn probe(address: &str) -> Result<Reply, Failed> {
    let failed = |lost| Failed::new(address, lost);
    let mut connection = Connection::open(address, PATIENCE).await.map_err(failed)?;
    connection.call(&[b"SET", b"bench:probe", b"1"]).await.map_err(failed)
}

async fn client(
    address: String,
    seed: u64,
    workload: Workload,
    timing: Timing,
) -> Result<Stopwatch, Failed> {
    let failed = |lost| Failed::new(&address, lost);
    let mut connection = Connection::open(&address, PATIENCE).await.map_err(failed)?;
    let mut rng = SmallRng::seed_from_u64(seed);
    let value = vec![b'v'; workload.value_bytes];
    let mut out = BytesMut::new();
    let mut stopwatch = Stopwatch::start(timing);
    loop {
        out.clear();
        for _ in 0..workload.pipeline {
            let key = random_key(&mut rng);
            match is_read(&mut rng, workload) {
                true => resp::encode(&mut out, &[b"GET", &key]),
                false => resp::encode(&mut out, &[b"SET", &key, &value]),
            }
        }
        let sent = Instant::now();
        connection.send(&out).await.map_err(failed)?;
        for _ in 0..workload.pipeline {
            if let Reply::Error(text) = connection.receive().await.map_err(failed)? {
                return Err(Failed::new(&address, text));
            }
        }
        if !stopwatch.answered(sent, workload.pipeline) {
            return Ok(stopwatch);
        }
    }
}
