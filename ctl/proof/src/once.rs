//! A client that may send a write again, and does: every write goes through `ONCE`, so the cluster
//! carries it out once, and the answer to a repeated one is the first answer.
//!
//! This is the way to be safe for programs too, not only for tests: `node/CLIENTS.md`.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use crate::client::{Client, Fate, Target};
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
                    // The command's own error, which took its number, or nonsense, which did not.
                    self.use_up_number(deadline).await?;
                    return Err(OnceError::Refused(word));
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
    async fn use_up_number(&mut self, deadline: Instant) -> Result<(), OnceError> {
        let number = self.next.to_string();
        let session = self.session.clone();
        let nothing: [&[u8]; 5] = [b"ONCE", &session, number.as_bytes(), b"GETEX", b"once:nothing"];
        loop {
            let last = match self.client.call(&nothing).await {
                Fate::Done(_) => break,
                Fate::Refused(word) if word == "ONCEOTHER" => break,
                Fate::Refused(word) => word,
                Fate::Unknown(why) => why.to_owned(),
            };
            if Instant::now() >= deadline {
                return Err(OnceError::Unknown(last));
            }
            tokio::time::sleep(PAUSE).await;
        }
        self.next += 1;
        Ok(())
    }
}

/// Refused now, and perhaps not in a moment.
fn may_pass(word: &str) -> bool {
    matches!(
        word,
        "CLUSTERDOWN" | "TRYAGAIN" | "MOVED" | "LOADING" | "MASTERDOWN" | "OOM" | "CONNECT"
    )
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// A server that answers one request a connection: by these words, or by hanging up.
    async fn server(answers: &'static [&'static str]) -> Target {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        tokio::spawn(async move {
            for answer in answers {
                let (mut stream, _) = listener.accept().await.unwrap();
                assert!(stream.read(&mut [0; 512]).await.unwrap() > 0, "nothing was asked");
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        Target::open(vec![address])
    }

    /// The disk fills after the write was done, and before it is sent again: "not done" is said of
    /// the second copy only.
    #[tokio::test]
    async fn a_full_disk_does_not_make_a_done_write_refused() {
        let target = server(&[":7\r\n", "", "-OOM the disk is full\r\n", ":1\r\n"]).await;
        let patience = Duration::from_secs(20);
        let mut once = OnceClient::open(target, patience).await.unwrap();
        assert_eq!(once.write(&[b"INCR", b"n"], patience).await, Ok(Reply::Integer(1)));
    }
}
