//! A client that may send a write again, and does: every write goes through `ONCE`, so the cluster
//! carries it out once, and the answer to a repeated one is the first answer.
//!
//! This is the way to be safe for programs too, not only for tests: `node/CLIENTS.md`.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use crate::client::{Client, Fate, MAXCLIENTS, Target};
use crate::resp::Reply;

/// Between two attempts, while there is no leader.
const PAUSE: Duration = Duration::from_millis(20);

/// See the module. One write at a time.
#[derive(Debug)]
pub struct OnceClient {
    client: Client,
    session: Bytes,
    /// The number of the next write.
    next: u64,
    /// Attempts beyond the first one of each write.
    repeated: u64,
}

/// Why a write has no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OnceError {
    /// Not done: the cluster refused it by this error word, however often it was asked.
    Refused(String),
    /// Nobody knows: no answer within the patience, or the session expired. Close this client: what
    /// it sends next would take the number of a write that may still arrive.
    Unknown(String),
}

impl OnceClient {
    /// Opens a session within `patience`. One that was opened and whose answer was lost expires by
    /// itself.
    pub async fn open(target: Target, patience: Duration) -> Result<OnceClient, OnceError> {
        let mut client = Client::new(target, 0);
        let deadline = Instant::now() + patience;
        loop {
            let last = match client.call(&[b"ONCE", b"OPEN"]).await {
                Fate::Done(Reply::Integer(session)) => {
                    let session = session.to_string().into();
                    return Ok(OnceClient { client, session, next: 1, repeated: 0 });
                }
                Fate::Done(other) => format!("{other:?}"),
                Fate::Refused(word) => word,
                Fate::Unknown(why) => why.to_owned(),
            };
            if Instant::now() >= deadline {
                return Err(OnceError::Refused(last));
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Attempts beyond the first ones: how often a write was sent again.
    pub fn repeated(&self) -> u64 {
        self.repeated
    }

    /// One write, sent until it has an answer, for at most `patience`. Of a reply that is an error
    /// of the command itself (`WRONGTYPE`, …) the word comes back as refused, and takes its number.
    pub async fn write(&mut self, words: &[&[u8]], patience: Duration) -> Result<Reply, OnceError> {
        let number = self.next.to_string();
        let session = self.session.clone();
        let mut command: Vec<&[u8]> = vec![b"ONCE", &session, number.as_bytes()];
        command.extend(words);
        let deadline = Instant::now() + patience;
        // While an earlier attempt may still arrive, "refused" speaks of the newest one only.
        let mut in_doubt = false;
        // It was carried out under this number: what it answers is the first answer.
        let mut is_settled = false;
        loop {
            let last = match self.client.call(&command).await {
                Fate::Done(reply) => {
                    self.next += 1;
                    return Ok(reply);
                }
                Fate::Unknown(why @ ("ONCEDONE" | "ONCEEXPIRED")) => {
                    return Err(OnceError::Unknown(why.to_owned()));
                }
                Fate::Unknown(why) => {
                    in_doubt = true;
                    why.to_owned()
                }
                Fate::Refused(word) if may_pass(&word) => word,
                Fate::Refused(word) => {
                    // The command's own error, which took its number, or a refusal of this attempt,
                    // which did not: an earlier one may have.
                    if is_settled || !self.is_number_taken(deadline).await? {
                        self.next += 1;
                        return Err(OnceError::Refused(word));
                    }
                    (is_settled, in_doubt) = (true, true);
                    word
                }
            };
            if Instant::now() >= deadline {
                return Err(match in_doubt {
                    true => OnceError::Unknown(last),
                    false => OnceError::Refused(last),
                });
            }
            self.repeated += 1;
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Leaves nobody in doubt whether a refused command took its number: one that changes nothing is
    /// sent under the same number, and either takes it or meets the other one.
    async fn is_number_taken(&mut self, deadline: Instant) -> Result<bool, OnceError> {
        let number = self.next.to_string();
        let session = self.session.clone();
        let nothing: [&[u8]; 5] = [b"ONCE", &session, number.as_bytes(), b"GETEX", b"once:nothing"];
        loop {
            let last = match self.client.call(&nothing).await {
                Fate::Done(_) => return Ok(false),
                Fate::Refused(word) if word == "ONCEOTHER" => return Ok(true),
                Fate::Refused(word) => word,
                Fate::Unknown(why) => why.to_owned(),
            };
            if Instant::now() >= deadline {
                return Err(OnceError::Unknown(last));
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// Refused now, and perhaps not in a moment: by the door, which knows of no earlier attempt.
fn may_pass(word: &str) -> bool {
    const BY_STATE: [&str; 7] =
        ["CLUSTERDOWN", "TRYAGAIN", "MOVED", "LOADING", "MASTERDOWN", "OOM", "CONNECT"];
    const BY_ACCESS: [&str; 5] = [MAXCLIENTS, "NOAUTH", "WRONGPASS", "NOPERM", "AUTH"];
    BY_STATE.contains(&word) || BY_ACCESS.contains(&word)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// A server that answers one request a connection: by these words, or by hanging up.
    async fn server(answers: &[&'static str]) -> Target {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let answers = answers.to_vec();
        tokio::spawn(async move {
            for answer in answers {
                let (mut stream, _) = listener.accept().await.unwrap();
                assert!(stream.read(&mut [0; 512]).await.unwrap() > 0, "nothing was asked");
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        Target::open(vec![address])
    }

    /// The first attempt is done, and nobody hears of it. What the door says to the second one, and what
    /// is answered then, is said of that copy only.
    const DONE_THOUGH_REFUSED: &[&[&str]] = &[
        &[":7\r\n", "", "-OOM the disk is full\r\n", ":1\r\n"],
        &[":7\r\n", "", "-ERR max number of clients reached\r\n", ":1\r\n"],
        &[":7\r\n", "", "-NOAUTH Authentication required.\r\n", ":1\r\n"],
        &[":7\r\n", "", "-NOPERM this user may only read\r\n", ":1\r\n"],
        // By a word that is nobody's: the number tells whose it is.
        &[":7\r\n", "", "-ERR whatever\r\n", "-ONCEOTHER number 1\r\n", ":1\r\n"],
        // And the door is full again when the answer is asked for.
        &[
            ":7\r\n",
            "",
            "-ERR whatever\r\n",
            "-ONCEOTHER number 1\r\n",
            "-ERR max number of clients reached\r\n",
            ":1\r\n",
        ],
    ];

    #[tokio::test]
    async fn a_refusal_of_the_second_attempt_does_not_make_a_done_write_refused() {
        for answers in DONE_THOUGH_REFUSED {
            let patience = Duration::from_secs(20);
            let mut once = OnceClient::open(server(answers).await, patience).await.unwrap();
            let reply = once.write(&[b"INCR", b"n"], patience).await;
            assert_eq!(reply, Ok(Reply::Integer(1)), "{answers:?}");
        }
    }

    #[tokio::test]
    async fn an_error_of_the_command_itself_is_its_answer() {
        let error = "-WRONGTYPE no number\r\n";
        let answers: &[&str] = &[":7\r\n", error, "-ONCEOTHER number 1\r\n", error];
        let patience = Duration::from_secs(20);
        let mut once = OnceClient::open(server(answers).await, patience).await.unwrap();
        let reply = once.write(&[b"INCR", b"n"], patience).await;
        assert_eq!(reply, Err(OnceError::Refused("WRONGTYPE".to_owned())));
    }

    /// The same by the client in the guide.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_refusal_of_the_guides_second_attempt_does_not_make_a_done_write_refused() {
        let guide = include_str!("../../../node/CLIENTS.md");
        let (_, code) = guide.split_once("```python\n").expect("the guide has a client");
        let (code, _) = code.split_once("\n```").expect("it ends");
        let script =
            format!("{code}\n\nimport sys\nassert Once(sys.argv[1:]).write('INCR', 'n') == 1\n");
        for answers in DONE_THOUGH_REFUSED {
            let target = server(answers).await;
            let mut python = tokio::process::Command::new("python3");
            python.arg("-c").arg(&script).args(&target.nodes);
            match python.output().await {
                Ok(output) => {
                    let said = String::from_utf8_lossy(&output.stderr);
                    assert!(output.status.success(), "{answers:?}: {said}");
                }
                Err(error) => return eprintln!("skipped: python3 does not start: {error}"),
            }
        }
    }
}
