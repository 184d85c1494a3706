//! A `redis-server` of our own, for the length of a test.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::frames;

pub(crate) struct Real {
    child: Child,
    port: u16,
    _dir: tempfile::TempDir,
}

impl Real {
    /// `None`, with the reason on stderr, where there is no `redis-server`.
    #[expect(clippy::print_stderr, reason = "whoever runs the tests is to know what was not run")]
    pub(crate) fn start() -> Option<Real> {
        for _ in 0..5 {
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let dir = tempfile::tempdir().unwrap();
            let child = Command::new("redis-server")
                .args(["--bind", "127.0.0.1", "--port", &port.to_string()])
                .args(["--save", "", "--appendonly", "no", "--databases", "16", "--dir"])
                .arg(dir.path())
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn();
            let child = match child {
                Ok(child) => child,
                Err(error) => {
                    eprintln!("skipped: redis-server cannot be started: {error}");
                    return None;
                }
            };
            let mut real = Real { child, port, _dir: dir };
            if real.answers() {
                return Some(real);
            }
        }
        panic!("redis-server is installed but did not come up on five ports");
    }

    /// False if it ended, most likely because somebody else took the port.
    fn answers(&mut self) -> bool {
        let deadline = Instant::now() + Duration::from_secs(30);
        while Instant::now() < deadline {
            if self.child.try_wait().unwrap().is_some() {
                return false;
            }
            if let Ok(stream) = TcpStream::connect(("127.0.0.1", self.port)) {
                let mut connection = Connection { stream, buffer: Vec::new() };
                connection.send(&[vec![b"INFO".to_vec(), b"server".to_vec()]]);
                let info = String::from_utf8_lossy(&connection.receive()).into_owned();
                // Ours, and not another process on a port that we lost.
                return info.contains(&format!("process_id:{}\r\n", self.child.id()));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        false
    }

    pub(crate) fn connect(&self) -> Connection {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        Connection { stream, buffer: Vec::new() }
    }
}

impl Drop for Real {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    pub(crate) fn send(&mut self, commands: &[Vec<Vec<u8>>]) {
        let bytes: Vec<u8> = commands.iter().flat_map(|command| frames::request(command)).collect();
        self.stream.write_all(&bytes).unwrap();
    }

    /// The bytes of one whole reply.
    pub(crate) fn receive(&mut self) -> Vec<u8> {
        loop {
            if let Some(length) = frames::length(&self.buffer) {
                return self.buffer.drain(..length).collect();
            }
            let mut piece = [0; 64 * 1024];
            let count = self.stream.read(&mut piece).expect("redis-server answers");
            assert_ne!(count, 0, "redis-server closed the connection");
            self.buffer.extend_from_slice(&piece[..count]);
        }
    }

    /// Sends bytes that end with the connection being closed, and returns all that came back.
    pub(crate) fn raw(mut self, bytes: &[u8]) -> Vec<u8> {
        // It may close before it has read everything; what it said before counts.
        let _ = self.stream.write_all(bytes);
        let mut answer = Vec::new();
        let mut piece = [0; 4096];
        loop {
            match self.stream.read(&mut piece) {
                Ok(0) => return answer,
                Ok(count) => answer.extend_from_slice(&piece[..count]),
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return answer,
                Err(error) => panic!("redis-server did not close: {error}"),
            }
        }
    }
}
