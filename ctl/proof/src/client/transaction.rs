//! `WATCH … MULTI … EXEC`, by the client that never sends a command of unknown fate again.
//!
//! A transaction needs one connection from its first word to its last: what was queued elsewhere is
//! gone. So it is redirected, and given up, as a whole. Only `EXEC` does anything: whatever ends
//! before it was sent is surely not done.

use bytes::Bytes;

use super::{Client, Command, Fate, REDIRECTS_MAX, fate_of, is_cut_off};
use crate::connection::{Connection, Lost};
use crate::resp::{self, Reply};

/// One attempt at one node.
enum Attempt {
    Ended(Fate),
    MovedTo(String),
}

impl Client {
    /// All commands at one instant. Done holds the replies of all of them.
    pub async fn transaction(&mut self, commands: &[Command]) -> Fate {
        for _ in 0..=REDIRECTS_MAX {
            let mut connection = match self.connected().await {
                Ok(connection) => connection,
                Err(word) => {
                    self.turn_to_next_node();
                    return Fate::Refused(word);
                }
            };
            let attempt = self.exec(&mut connection, commands).await;
            if let Some(fate) = self.settle(connection, attempt) {
                return fate;
            }
        }
        Fate::Refused("MOVED".to_owned())
    }

    /// Reads `key` and, unless somebody touches it meanwhile, carries out what `plan` makes of its
    /// value. Answers that value too, once it was read; Done holds nil where somebody did.
    pub async fn guarded(
        &mut self,
        key: &Bytes,
        plan: impl Fn(Option<Bytes>) -> Vec<Command>,
    ) -> (Option<Bytes>, Fate) {
        for _ in 0..=REDIRECTS_MAX {
            let mut connection = match self.connected().await {
                Ok(connection) => connection,
                Err(word) => {
                    self.turn_to_next_node();
                    return (None, Fate::Refused(word));
                }
            };
            let read = watch(&mut connection, key).await;
            let (value, attempt) = match read {
                Ok(Ok(value)) => {
                    let commands = plan(value.clone());
                    (value, self.exec(&mut connection, &commands).await)
                }
                Ok(Err(attempt)) => (None, Ok(attempt)),
                // Nothing was asked yet but to look.
                Err(lost) => (None, Ok(Attempt::Ended(Fate::Refused(lost.word().to_owned())))),
            };
            if let Some(fate) = self.settle(connection, attempt) {
                return (value, fate);
            }
        }
        (None, Fate::Refused("MOVED".to_owned()))
    }

    /// `MULTI`, the commands and `EXEC` in one write.
    async fn exec(
        &mut self,
        connection: &mut Connection,
        commands: &[Command],
    ) -> Result<Attempt, Lost> {
        self.out.clear();
        resp::encode(&mut self.out, &[b"MULTI"]);
        for command in commands {
            let words: Vec<&[u8]> = command.iter().map(|word| &word[..]).collect();
            resp::encode(&mut self.out, &words);
        }
        resp::encode(&mut self.out, &[b"EXEC"]);
        connection.send(&self.out).await?;
        let mut moved_to = None;
        let mut refused = None;
        for _ in 0..=commands.len() {
            let reply = connection.receive().await?;
            moved_to = moved_to.or(reply.moved_to().map(str::to_owned));
            refused = refused.or(reply.error_word().map(str::to_owned));
        }
        let reply = connection.receive().await?;
        moved_to = moved_to.or(reply.moved_to().map(str::to_owned));
        Ok(match (moved_to, refused) {
            // Whatever spoilt a part of it has spoilt the whole.
            (Some(address), _) if reply.error_word().is_some() => Attempt::MovedTo(address),
            (_, Some(word)) if reply.error_word().is_some() => Attempt::Ended(Fate::Refused(word)),
            _ => Attempt::Ended(fate_of(reply)),
        })
    }

    /// Keeps the connection, or turns elsewhere. `None`: the same again, there.
    fn settle(&mut self, connection: Connection, attempt: Result<Attempt, Lost>) -> Option<Fate> {
        match attempt {
            Ok(Attempt::MovedTo(address)) => {
                self.address = address;
                None
            }
            // It may still watch the key, so the next one begins with a fresh connection.
            Ok(Attempt::Ended(Fate::Refused(word))) => {
                if is_cut_off(&word) || word == "TIMEOUT" || word == "CLOSED" {
                    self.turn_to_next_node();
                }
                Some(Fate::Refused(word))
            }
            Ok(Attempt::Ended(fate)) => {
                self.connection = Some(connection);
                Some(fate)
            }
            Err(lost) => {
                self.turn_to_next_node();
                Some(Fate::Unknown(lost.word()))
            }
        }
    }
}

/// The value of a key that is watched from now on.
async fn watch(
    connection: &mut Connection,
    key: &Bytes,
) -> Result<Result<Option<Bytes>, Attempt>, Lost> {
    for words in [&[b"WATCH", &key[..]], &[b"GET".as_slice(), key]] {
        let reply = connection.call(words).await?;
        if let Some(address) = reply.moved_to() {
            return Ok(Err(Attempt::MovedTo(address.to_owned())));
        }
        match reply {
            Reply::Simple(_) => {}
            Reply::Bulk(value) => return Ok(Ok(Some(value))),
            Reply::Nil => return Ok(Ok(None)),
            other => return Ok(Err(Attempt::Ended(fate_of(other)))),
        }
    }
    unreachable!("GET is not answered by a simple string")
}
