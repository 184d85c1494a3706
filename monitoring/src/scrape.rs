//! Reads the pages of all nodes at one instant. Connections are made first, then all requests leave
//! together: sampling one node after another would show a leader behind its follower (PITFALLS 51).
//! Each node has its own deadline, so the whole takes as long as the slowest is allowed to, however
//! many are dead.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::Barrier;
use tokio::time::{Instant, timeout_at};

use crate::reading::{Failure, Pages, Reading, Sample, Target, Via};

/// A second way to the pages, for nodes whose HTTP port cannot be reached: through ssh, by
/// `paxos-node get`. Called once for a node that failed over HTTP; bounded by the caller.
pub type Fallback = Arc<
    dyn Fn(Target) -> Pin<Box<dyn Future<Output = Result<Pages, String>> + Send>> + Send + Sync,
>;

/// How long reading may take.
#[derive(Clone, Copy, Debug)]
pub struct Deadlines {
    /// Connections that are not there by then no longer hold up the others' requests.
    pub together: Duration,
    /// Over HTTP, when there is a second way; without one, HTTP may use the whole time.
    pub http: Duration,
    pub total: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        Deadlines {
            together: Duration::from_millis(150),
            http: Duration::from_millis(1_000),
            total: Duration::from_millis(2_500),
        }
    }
}

const PAGE_BYTES_MAX: usize = 4 << 20;

/// One sample a target, in the same order.
pub async fn scrape_all(
    targets: &[Target],
    deadlines: Deadlines,
    fallback: Option<Fallback>,
) -> Vec<Sample> {
    let start = Instant::now();
    let barrier = Arc::new(Barrier::new(targets.len().max(1)));
    let tasks: Vec<_> = targets
        .iter()
        .map(|target| {
            let scrape =
                scrape(target.clone(), start, deadlines, Arc::clone(&barrier), fallback.clone());
            (target, tokio::spawn(scrape))
        })
        .collect();
    let mut samples = Vec::with_capacity(tasks.len());
    for (target, task) in tasks {
        let outcome = task.await.unwrap_or_else(|error| {
            Err(Failure::Strange(format!("reading {} broke off: {error}", target.http)))
        });
        samples.push(Sample { target: target.clone(), outcome });
    }
    samples
}

async fn scrape(
    target: Target,
    start: Instant,
    deadlines: Deadlines,
    barrier: Arc<Barrier>,
    fallback: Option<Fallback>,
) -> Result<Reading, Failure> {
    let http_max = if fallback.is_some() { deadlines.http } else { deadlines.total };
    let by_http = async {
        let connected = connect(&target.http).await;
        // Who failed arrives too, so that nobody waits for it.
        let _ = timeout_at(start + deadlines.together, barrier.wait()).await;
        let mut connection = connected?;
        let metrics = get(&mut connection, &target.http, "/metrics").await?;
        let status = get(&mut connection, &target.http, "/status").await?;
        Ok(Pages { metrics, status })
    };
    let no_answer = |limit: Duration| {
        Failure::Silent(format!("{}: no answer within {} ms", target.http, limit.as_millis()))
    };
    let failure = match timeout_at(start + http_max, by_http).await {
        Ok(Ok(pages)) => return Reading::from_pages(&target, &pages, Via::Http),
        Ok(Err(failure @ Failure::Recovering(_))) => return Err(failure),
        Ok(Err(failure)) => failure,
        Err(_) => no_answer(http_max),
    };
    let Some(fallback) = fallback else { return Err(failure) };
    match timeout_at(start + deadlines.total, fallback(target.clone())).await {
        Ok(Ok(pages)) => Reading::from_pages(&target, &pages, Via::Ssh),
        // The ssh side says more: the node may be gone while its host is there.
        Ok(Err(by_ssh)) => Err(both(&failure, &by_ssh)),
        Err(_) => Err(both(&failure, "ssh: no answer in time")),
    }
}

fn both(by_http: &Failure, by_ssh: &str) -> Failure {
    let text = format!("{by_http}; {by_ssh}");
    match by_http {
        Failure::Silent(_) => Failure::Silent(text),
        Failure::Refused(_) => Failure::Refused(text),
        Failure::Recovering(_) => Failure::Recovering(text),
        Failure::Strange(_) => Failure::Strange(text),
    }
}

async fn connect(address: &str) -> Result<SendRequest<Empty<Bytes>>, Failure> {
    let stream = TcpStream::connect(address).await.map_err(|error| {
        let text = format!("{address}: {}", plain(&error));
        match error.kind() {
            std::io::ErrorKind::ConnectionRefused => Failure::Refused(text),
            _ => Failure::Silent(text),
        }
    })?;
    let _ = stream.set_nodelay(true);
    let (sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| Failure::Strange(format!("{address}: {error}")))?;
    // Ends with the sender; its errors come out of the requests.
    tokio::spawn(connection);
    Ok(sender)
}

/// The system's words without the number.
fn plain(error: &std::io::Error) -> String {
    let text = error.to_string();
    let words = text.split(" (os error").next().unwrap_or_default();
    words.to_lowercase()
}

async fn get(
    connection: &mut SendRequest<Empty<Bytes>>,
    address: &str,
    path: &str,
) -> Result<String, Failure> {
    let strange = |what: String| Failure::Strange(format!("{address}{path}: {what}"));
    let request = Request::get(path)
        .header(hyper::header::HOST, address)
        .body(Empty::new())
        .map_err(|error| strange(error.to_string()))?;
    connection.ready().await.map_err(|error| strange(error.to_string()))?;
    let response =
        connection.send_request(request).await.map_err(|error| strange(error.to_string()))?;
    let code = response.status();
    let body = Limited::new(response.into_body(), PAGE_BYTES_MAX).collect().await;
    let body = body.map_err(|error| strange(error.to_string()))?.to_bytes();
    let text = String::from_utf8_lossy(&body).into_owned();
    if code != StatusCode::OK {
        let first_line = text.lines().next().unwrap_or_default();
        if code == StatusCode::SERVICE_UNAVAILABLE {
            return Err(Failure::Recovering(format!("{address}: {first_line}")));
        }
        return Err(strange(format!("{}: {first_line}", code.as_u16())));
    }
    Ok(text)
}
