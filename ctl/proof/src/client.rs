//! A client of the whole cluster that never resends a command of unknown fate.
//!
//! It keeps one connection, to the node that it takes for the leader. `-MOVED` says that the command
//! was not done here, so the same command may go to the node that `-MOVED` names. A connection that
//! ends with commands unanswered leaves those with an unknown fate: they are reported as such, and
//! the next batch goes to the next node.

use std::time::Duration;

use bytes::{Bytes, BytesMut};

use crate::connection::{Connection, Lost};
use crate::resp::{self, Reply};

mod transaction;

/// A command is redirected at most this often before it is given up as refused.
const REDIRECTS_MAX: usize = 5;

/// One command: its words.
pub type Command = Vec<Bytes>;

/// What became of one command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The server answered, and not by an error.
    Done(Reply),
    /// Surely not done: an error reply, or nothing was ever sent. Holds the error's first word.
    Refused(String),
    /// Sent and never answered. It may have been done, or be done later. Holds why.
    Unknown(&'static str),
}

/// How to reach the cluster.
#[derive(Clone, Debug)]
pub struct Target {
    /// `host:port` of the nodes, in any order.
    pub nodes: Vec<String>,
    /// User name and password, where the cluster asks for them.
    pub credentials: Option<(String, String)>,
    /// The longest wait for a connection or a reply.
    pub patience: Duration,
}

impl Target {
    /// An open cluster at these addresses.
    pub fn open(nodes: Vec<String>) -> Target {
        Target { nodes, credentials: None, patience: Duration::from_secs(5) }
    }
}

/// See the module.
#[derive(Debug)]
pub struct Client {
    target: Target,
    /// Where the next connection goes: a node of `target`, or where the last `-MOVED` pointed.
    address: String,
    next_node: usize,
    connection: Option<Connection>,
    out: BytesMut,
}

impl Client {
    /// Clients that start at different nodes are given different `start`s.
    pub fn new(target: Target, start: usize) -> Client {
        assert!(!target.nodes.is_empty(), "a client needs at least one node to turn to");
        let next_node = start % target.nodes.len();
        let address = target.nodes[next_node].clone();
        Client { target, address, next_node, connection: None, out: BytesMut::new() }
    }

    /// The node that the next command goes to.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Sends all commands at once (a pipeline) and answers their fates, in their order.
    pub async fn run(&mut self, commands: &[Command]) -> Vec<Fate> {
        let mut fates: Vec<Option<Fate>> = vec![None; commands.len()];
        let mut pending: Vec<usize> = (0..commands.len()).collect();
        for _ in 0..=REDIRECTS_MAX {
            if pending.is_empty() {
                break;
            }
            pending = self.round(commands, &pending, &mut fates).await;
        }
        let moved = || Fate::Refused("MOVED".to_owned());
        fates.into_iter().map(|fate| fate.unwrap_or_else(moved)).collect()
    }

    /// One command alone.
    pub async fn call(&mut self, words: &[&[u8]]) -> Fate {
        let command: Command = words.iter().map(|word| Bytes::copy_from_slice(word)).collect();
        let mut fates = self.run(std::slice::from_ref(&command)).await;
        fates.pop().expect("one command has one fate")
    }

    /// Sends the pending commands to one node. Those that it redirects are returned.
    async fn round(
        &mut self,
        commands: &[Command],
        pending: &[usize],
        fates: &mut [Option<Fate>],
    ) -> Vec<usize> {
        let mut connection = match self.connected().await {
            Ok(connection) => connection,
            Err(word) => {
                self.turn_to_next_node();
                pending.iter().for_each(|&i| fates[i] = Some(Fate::Refused(word.clone())));
                return Vec::new();
            }
        };
        self.out.clear();
        for &index in pending {
            let words: Vec<&[u8]> = commands[index].iter().map(|word| &word[..]).collect();
            resp::encode(&mut self.out, &words);
        }
        let mut redirected = Vec::new();
        let mut moved_to = None;
        let mut cut_off = false;
        let mut lost = connection.send(&self.out).await.err();
        for &index in pending {
            if lost.is_none() {
                match connection.receive().await {
                    Ok(reply) => {
                        if let Some(address) = reply.moved_to() {
                            moved_to = Some(address.to_owned());
                            redirected.push(index);
                        } else {
                            cut_off |= word_of(&reply).is_some_and(is_cut_off);
                            fates[index] = Some(fate_of(reply));
                        }
                        continue;
                    }
                    Err(error) => lost = Some(error),
                }
            }
            let why = lost.as_ref().map_or("LOST", Lost::word);
            fates[index] = Some(Fate::Unknown(why));
        }
        match (lost, moved_to) {
            (_, Some(address)) => self.address = address,
            (Some(_), None) => self.turn_to_next_node(),
            (None, None) if cut_off => self.turn_to_next_node(),
            (None, None) => self.connection = Some(connection),
        }
        redirected
    }

    /// The open connection, or a new one. An error is a word: nothing was sent.
    async fn connected(&mut self) -> Result<Connection, String> {
        if let Some(connection) = self.connection.take() {
            return Ok(connection);
        }
        let opened = Connection::open(&self.address, self.target.patience).await;
        let mut connection = opened.map_err(|lost| lost.word().to_owned())?;
        if let Some((user, password)) = &self.target.credentials {
            let words: [&[u8]; 3] = [b"AUTH", user.as_bytes(), password.as_bytes()];
            match connection.call(&words).await {
                Ok(Reply::Error(_)) => return Err("AUTH".to_owned()),
                Ok(_) => {}
                Err(lost) => return Err(lost.word().to_owned()),
            }
        }
        Ok(connection)
    }

    fn turn_to_next_node(&mut self) {
        self.next_node = (self.next_node + 1) % self.target.nodes.len();
        self.address = self.target.nodes[self.next_node].clone();
    }
}

/// A node that knows no leader, or is not ready, may be cut off from those that do: whoever stays
/// with it waits for ever (PITFALLS 39). One that is full has closed the connection.
fn is_cut_off(word: &str) -> bool {
    matches!(word, "CLUSTERDOWN" | "LOADING" | "MASTERDOWN" | MAXCLIENTS)
}

/// Not a word of the protocol: a node that has all the clients that it may have says so by a plain
/// `ERR`, before it has read any command.
pub(crate) const MAXCLIENTS: &str = "MAXCLIENTS";

fn word_of(reply: &Reply) -> Option<&str> {
    match reply {
        Reply::Error(text) if text.starts_with("ERR max number of clients") => Some(MAXCLIENTS),
        reply => reply.error_word(),
    }
}

/// An error reply means "surely not done", with two exceptions that say so by their name.
fn fate_of(reply: Reply) -> Fate {
    match word_of(&reply) {
        None => Fate::Done(reply),
        Some("ONCEDONE") => Fate::Unknown("ONCEDONE"),
        Some("ONCEEXPIRED") => Fate::Unknown("ONCEEXPIRED"),
        Some(word) => Fate::Refused(word.to_owned()),
    }
}
