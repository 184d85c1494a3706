//! The read-only pages: `/metrics`, `/healthz`, `/readyz`, `/status`. GET and HEAD only; nothing
//! secret, nothing that changes state (DESIGN §7).
//!
//! They run on a thread and a runtime of their own: a scrape never waits for the core loop, and the
//! core loop never for a scrape. All that they know of the core is what it has [`Published`].
//!
//! `/healthz` asks "should somebody restart this process?", so it knows nothing of leaders and
//! quorums: a probe that kills nodes because there is no leader takes care that there never is one
//! (PITFALLS 86). Only a core loop that has stopped publishing turns it red (87). `/readyz` asks
//! "will work that is sent here be done?" and turns red for every reason not to (50).
//!
//! These two answer anyone; the others this machine, members, and `security.scrape_from`.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::{Arc, RwLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use monitoring::exposition;
use monitoring::status::{NodeStatus, ReadyWithin};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, oneshot};

use crate::access::{Access, Cidr, member_hosts};
use crate::published::Published;

/// What the pages are told at their start.
pub struct HttpSettings {
    pub listen: SocketAddr,
    pub scrape_from: Vec<Cidr>,
    pub limits: Limits,
    pub ready_within: ReadyWithin,
}

/// Bounds on what readers may take. Strangers, who may only ask for health, have their own share,
/// so that they cannot keep Prometheus out.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub header_bytes_max: usize,
    pub header_timeout: Duration,
    pub connections_max: usize,
    pub connection_lifetime_max: Duration,
    pub strangers_max: usize,
    pub stranger_lifetime_max: Duration,
    /// A core loop that has published nothing for this long is dead.
    pub core_silence_max: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            header_bytes_max: 8 << 10,
            header_timeout: Duration::from_secs(30),
            connections_max: 128,
            connection_lifetime_max: Duration::from_secs(600),
            strangers_max: 32,
            stranger_lifetime_max: Duration::from_secs(10),
            core_silence_max: Duration::from_secs(2),
        }
    }
}

/// The running pages. Dropping it closes the port and ends the thread.
pub struct Http {
    local_address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Http {
    /// Listens at once, so that a port that is taken is an error of the start, then serves on a
    /// thread of its own.
    pub fn start(settings: HttpSettings, published: Arc<Published>) -> io::Result<Http> {
        let listener = std::net::TcpListener::bind(settings.listen)?;
        listener.set_nonblocking(true)?;
        let local_address = listener.local_addr()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (stop, stopped) = oneshot::channel();
        let pages = Arc::new(Pages::new(settings, published));
        let serve = move || {
            runtime.block_on(async {
                tokio::select! {
                    result = serve(listener, pages) => result.expect("the listener was made for tokio"),
                    _ = stopped => {}
                }
            });
            // A name server that does not answer must not hold up the end of the process.
            runtime.shutdown_background();
        };
        let thread = std::thread::Builder::new().name("http".to_owned()).spawn(serve)?;
        Ok(Http { local_address, stop: Some(stop), thread: Some(thread) })
    }

    pub fn local_address(&self) -> SocketAddr {
        self.local_address
    }
}

impl Drop for Http {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread of the HTTP pages had panicked");
        }
    }
}

/// What every request sees.
struct Pages {
    published: Arc<Published>,
    limits: Limits,
    ready_within: ReadyWithin,
    access: RwLock<Access>,
}

/// Where a request came from.
#[derive(Clone, Copy)]
struct Reader(IpAddr);

impl Pages {
    fn new(settings: HttpSettings, published: Arc<Published>) -> Pages {
        let access = Access { scrape_from: settings.scrape_from, members: BTreeSet::new() };
        Pages {
            published,
            limits: settings.limits,
            ready_within: settings.ready_within,
            access: RwLock::new(access),
        }
    }

    fn allows(&self, from: IpAddr) -> bool {
        self.access.read().expect("no holder of this lock panics").allows(from)
    }
}

async fn serve(listener: std::net::TcpListener, pages: Arc<Pages>) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    tokio::spawn(follow_members(Arc::clone(&pages)));
    let readers = Arc::new(Semaphore::new(pages.limits.connections_max));
    let strangers = Arc::new(Semaphore::new(pages.limits.strangers_max));
    let router = router(Arc::clone(&pages));
    loop {
        let (stream, from) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // No file descriptors left, or a connection that was reset in the queue: neither
                // is a reason to stop, but the first must not become a busy loop.
                tracing::warn!(%error, "cannot take a connection to the HTTP pages");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let known = pages.allows(from.ip());
        let share = if known { &readers } else { &strangers };
        let Ok(permit) = Arc::clone(share).try_acquire_owned() else {
            continue; // closes it
        };
        let limits = pages.limits;
        let lifetime_max =
            if known { limits.connection_lifetime_max } else { limits.stranger_lifetime_max };
        let router = router.clone().layer(axum::Extension(Reader(from.ip())));
        tokio::spawn(async move {
            serve_connection(stream, router, limits, lifetime_max).await;
            drop(permit);
        });
    }
}

async fn serve_connection(
    stream: TcpStream,
    router: Router,
    limits: Limits,
    lifetime_max: Duration,
) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_buf_size(limits.header_bytes_max)
        .max_headers(64)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut connection = pin!(connection);
    // How a reader's connection ends is the reader's business.
    tokio::select! {
        _ = connection.as_mut() => return,
        () = tokio::time::sleep(lifetime_max) => connection.as_mut().graceful_shutdown(),
    }
    let _ = tokio::time::timeout(Duration::from_secs(5), connection).await;
}

fn router(pages: Arc<Pages>) -> Router {
    let private = Router::new()
        .route("/metrics", get(metrics))
        .route("/status", get(status))
        .route_layer(middleware::from_fn_with_state(Arc::clone(&pages), members_only));
    Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/", get(index))
        .merge(private)
        .method_not_allowed_fallback(method_not_allowed)
        .fallback(not_found)
        .with_state(pages)
}

async fn members_only(
    State(pages): State<Arc<Pages>>,
    axum::Extension(Reader(from)): axum::Extension<Reader>,
    request: Request,
    next: Next,
) -> Response {
    if pages.allows(from) {
        return next.run(request).await;
    }
    let text = format!(
        "{from} may not read this page: only this machine, members of the cluster and the networks \
         in `security.scrape_from` of the inventory may. /healthz and /readyz answer anyone.\n"
    );
    plain(StatusCode::FORBIDDEN, text)
}

async fn metrics(State(pages): State<Arc<Pages>>) -> Response {
    let newest = pages.published.newest();
    let page = pages.published.metrics().page(newest.as_ref().map(|(_, status)| &**status));
    let headers =
        [(header::CONTENT_TYPE, exposition::CONTENT_TYPE), (header::CACHE_CONTROL, "no-store")];
    (headers, page).into_response()
}

async fn healthz(State(pages): State<Arc<Pages>>) -> Response {
    let limit = pages.limits.core_silence_max;
    match pages.published.newest() {
        None => plain(StatusCode::OK, format!("ok: {}\n", recovering(&pages.published))),
        Some((age, _)) if age > limit => {
            let text = format!("the core loop has not turned for {} ms\n", age.as_millis());
            plain(StatusCode::SERVICE_UNAVAILABLE, text)
        }
        Some(_) => plain(StatusCode::OK, "ok\n"),
    }
}

async fn readyz(State(pages): State<Arc<Pages>>) -> Response {
    let Some((age, status)) = pages.published.newest() else {
        let text = format!("not ready: {}\n", recovering(&pages.published));
        return plain(StatusCode::SERVICE_UNAVAILABLE, text);
    };
    let status = NodeStatus { age_ms: millis(age), ..NodeStatus::clone(&status) };
    match status.readiness(pages.ready_within) {
        Ok(()) => plain(StatusCode::OK, "ready\n"),
        Err(reason) => plain(StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {reason}\n")),
    }
}

async fn status(State(pages): State<Arc<Pages>>) -> Response {
    let Some((age, status)) = pages.published.newest() else {
        let text = format!("no status yet: {}\n", recovering(&pages.published));
        return plain(StatusCode::SERVICE_UNAVAILABLE, text);
    };
    let metrics = pages.published.metrics();
    let status = NodeStatus {
        leader_changes: metrics.leader_changes.get(),
        sync_p99_us: metrics.sync_p99_us(),
        age_ms: millis(age),
        ..NodeStatus::clone(&status)
    };
    let mut page = serde_json::to_string_pretty(&status).expect("a status has string keys only");
    page.push('\n');
    let headers = [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")];
    (headers, page).into_response()
}

/// How far a node has come that still reads its disk.
fn recovering(published: &Published) -> String {
    let metrics = published.metrics();
    let (records, bytes) = (metrics.recovery_records.get(), metrics.recovery_bytes.get());
    let seconds = published.uptime().as_secs();
    format!("recovering for {seconds} s, {records} records ({} MiB) read", bytes >> 20)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

async fn index() -> Response {
    plain(StatusCode::OK, PAGES)
}

async fn not_found() -> Response {
    plain(StatusCode::NOT_FOUND, format!("no such page; there are\n{PAGES}"))
}

async fn method_not_allowed() -> Response {
    plain(StatusCode::METHOD_NOT_ALLOWED, "these pages are read-only: GET or HEAD\n")
}

const PAGES: &str = "/metrics  Prometheus text format\n\
                     /status   this node as JSON\n\
                     /healthz  200 while the core loop turns, leader or not\n\
                     /readyz   200 while work sent here is likely to be done\n";

fn plain(code: StatusCode, text: impl Into<String>) -> Response {
    let headers =
        [(header::CONTENT_TYPE, "text/plain; charset=utf-8"), (header::CACHE_CONTROL, "no-store")];
    (code, headers, text.into()).into_response()
}

/// Keeps the members' addresses known, so that no request has to wait for a look-up. Addresses
/// follow the published configuration within a second; names are looked up again every minute.
async fn follow_members(pages: Arc<Pages>) {
    let mut known = BTreeSet::new();
    let mut looked_up = Instant::now();
    loop {
        if let Some((_, status)) = pages.published.newest() {
            let hosts = member_hosts(&status.configuration.members);
            if hosts != known || looked_up.elapsed() > Duration::from_secs(60) {
                let members = look_up(&hosts).await;
                pages.access.write().expect("no holder of this lock panics").members = members;
                known = hosts;
                looked_up = Instant::now();
            }
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// Addresses first; of names, those that a name server knows within five seconds.
async fn look_up(hosts: &BTreeSet<String>) -> BTreeSet<IpAddr> {
    let mut addresses: BTreeSet<IpAddr> =
        hosts.iter().filter_map(|host| host.parse().ok()).collect();
    for name in hosts.iter().filter(|host| host.parse::<IpAddr>().is_err()) {
        let found = tokio::net::lookup_host((name.as_str(), 0));
        match tokio::time::timeout(Duration::from_secs(5), found).await {
            Ok(Ok(found)) => addresses.extend(found.map(|address| address.ip().to_canonical())),
            Ok(Err(error)) => tracing::warn!(%name, %error, "cannot look up a member's address"),
            Err(_) => tracing::warn!(%name, "cannot look up a member's address within 5 s"),
        }
    }
    addresses
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use hyper::service::Service;
    use monitoring::status::{Configuration, Member, MemberRole};

    use super::*;
    use crate::metrics::Metrics;

    const STRANGER: &str = "198.51.100.9";

    fn pages(scrape_from: &[&str], core_silence_max: Duration) -> Arc<Pages> {
        let published = Published::new(Arc::new(Metrics::new("1.2.3", "abc")));
        let settings = HttpSettings {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            scrape_from: scrape_from.iter().map(|network| network.parse().unwrap()).collect(),
            limits: Limits { core_silence_max, ..Limits::default() },
            ready_within: ReadyWithin::default(),
        };
        Arc::new(Pages::new(settings, Arc::new(published)))
    }

    async fn ask(pages: &Arc<Pages>, from: &str, method: &str, path: &str) -> (u16, String) {
        let reader = Reader(from.parse().unwrap());
        let router = router(Arc::clone(pages)).layer(axum::Extension(reader));
        let request = Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
        let response = TowerToHyperService::new(router).call(request).await.unwrap();
        let code = response.status().as_u16();
        let body = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
        (code, String::from_utf8(body.to_vec()).unwrap())
    }

    fn ready() -> NodeStatus {
        NodeStatus {
            leader: Some(1),
            leader_contact_ms: Some(0),
            can_accept: true,
            ..NodeStatus::default()
        }
    }

    #[tokio::test]
    async fn strangers_learn_health_and_nothing_else() {
        let pages = pages(&["203.0.113.0/24"], Duration::MAX);
        pages.published.store(ready());
        for (path, code) in
            [("/healthz", 200), ("/readyz", 200), ("/metrics", 403), ("/status", 403)]
        {
            assert_eq!(ask(&pages, STRANGER, "GET", path).await.0, code, "{path}");
            assert_eq!(ask(&pages, "127.0.0.1", "GET", path).await.0, 200, "{path}");
            assert_eq!(ask(&pages, "::1", "GET", path).await.0, 200, "{path}");
            assert_eq!(ask(&pages, "203.0.113.77", "GET", path).await.0, 200, "{path}");
            assert_eq!(ask(&pages, "::ffff:203.0.113.77", "GET", path).await.0, 200, "{path}");
        }
        let (_, text) = ask(&pages, STRANGER, "GET", "/metrics").await;
        assert!(text.contains(STRANGER) && text.contains("security.scrape_from"), "{text}");
    }

    #[tokio::test]
    async fn members_read_from_the_addresses_of_the_published_configuration() {
        let pages = pages(&[], Duration::MAX);
        let member = Member {
            id: 2,
            name: "n2".into(),
            role: MemberRole::Voter,
            peer: "198.51.100.9:7380".into(),
            client: "localhost:7379".into(),
            http: String::new(),
        };
        let hosts = member_hosts(std::slice::from_ref(&member));
        let configuration =
            Configuration { number: 1, members: vec![member], ..Configuration::default() };
        pages.published.store(NodeStatus { configuration, ..ready() });
        assert_eq!(ask(&pages, STRANGER, "GET", "/metrics").await.0, 403);
        pages.access.write().unwrap().members = look_up(&hosts).await;
        assert_eq!(ask(&pages, STRANGER, "GET", "/metrics").await.0, 200);
    }

    /// PITFALLS 86: no quorum is no reason to restart a healthy process.
    #[tokio::test]
    async fn without_a_leader_a_node_is_healthy_and_not_ready() {
        let pages = pages(&[], Duration::MAX);
        pages.published.store(NodeStatus { leader: None, ..ready() });
        assert_eq!(ask(&pages, STRANGER, "GET", "/healthz").await, (200, "ok\n".into()));
        let (code, text) = ask(&pages, STRANGER, "GET", "/readyz").await;
        assert_eq!(code, 503);
        assert_eq!(text, "not ready: no leader known (0 of 0 peers connected)\n");
    }

    /// PITFALLS 87: a dead core in a living process.
    #[tokio::test]
    async fn a_core_that_stopped_publishing_is_unhealthy() {
        let pages = pages(&[], Duration::ZERO);
        pages.published.store(ready());
        let (code, text) = ask(&pages, STRANGER, "GET", "/healthz").await;
        assert_eq!(code, 503);
        assert!(text.starts_with("the core loop has not turned for "), "{text}");
    }

    #[tokio::test]
    async fn a_node_that_recovers_is_alive_but_neither_ready_nor_known() {
        let pages = pages(&[], Duration::ZERO);
        assert_eq!(ask(&pages, STRANGER, "GET", "/healthz").await.0, 200);
        pages.published.metrics().recovery_records.inc_by(7);
        let (code, text) = ask(&pages, STRANGER, "GET", "/readyz").await;
        assert_eq!(code, 503);
        assert_eq!(text, "not ready: recovering for 0 s, 7 records (0 MiB) read\n");
        assert_eq!(ask(&pages, "127.0.0.1", "GET", "/status").await.0, 503);
        let (code, page) = ask(&pages, "127.0.0.1", "GET", "/metrics").await;
        assert_eq!(code, 200);
        assert!(page.contains("\npaxos_recovering 1\n"), "{page}");
        assert!(page.contains("\npaxos_recovery_records_total 7\n"), "{page}");
    }

    #[tokio::test]
    async fn nothing_but_reading() {
        let pages = pages(&[], Duration::MAX);
        pages.published.store(ready());
        for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"] {
            for path in ["/metrics", "/status", "/healthz", "/readyz", "/"] {
                assert_eq!(ask(&pages, "::1", method, path).await.0, 405, "{method} {path}");
            }
        }
        assert_eq!(ask(&pages, "::1", "HEAD", "/status").await, (200, String::new()));
        let (code, text) = ask(&pages, STRANGER, "GET", "/admin").await;
        assert!(code == 404 && text.contains("/readyz"), "{code} {text}");
    }
}
