//! One TCP connection to one node. Every wait is bounded; nothing is ever sent twice.

use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::resp::{self, Garbled, Reply};

/// The connection is of no more use; what was sent and not answered has an unknown fate.
#[derive(Debug, thiserror::Error)]
pub enum Lost {
    #[error("connect to {address}: {source}")]
    Connect { address: String, source: std::io::Error },
    #[error("the node closed the connection")]
    Closed,
    #[error("no answer within {0:?}")]
    Silent(Duration),
    #[error(transparent)]
    Broken(#[from] std::io::Error),
    #[error(transparent)]
    Garbled(#[from] Garbled),
}

impl Lost {
    /// One word for counting.
    pub fn word(&self) -> &'static str {
        match self {
            Lost::Connect { .. } => "CONNECT",
            Lost::Closed => "CLOSED",
            Lost::Silent(_) => "TIMEOUT",
            Lost::Broken(_) => "BROKEN",
            Lost::Garbled(_) => "GARBLED",
        }
    }
}

/// An open connection and what has arrived on it but was not taken yet.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    input: BytesMut,
    patience: Duration,
}

impl Connection {
    /// Opens a connection; `patience` bounds this and every later wait.
    pub async fn open(address: &str, patience: Duration) -> Result<Connection, Lost> {
        let refused = |source| Lost::Connect { address: address.to_owned(), source };
        let stream = match timeout(patience, TcpStream::connect(address)).await {
            Ok(connected) => connected.map_err(refused)?,
            Err(_) => return Err(refused(std::io::ErrorKind::TimedOut.into())),
        };
        stream.set_nodelay(true)?;
        Ok(Connection { stream, input: BytesMut::with_capacity(4096), patience })
    }

    /// Writes bytes of whole commands.
    pub async fn send(&mut self, commands: &[u8]) -> Result<(), Lost> {
        match timeout(self.patience, self.stream.write_all(commands)).await {
            Ok(written) => Ok(written?),
            Err(_) => Err(Lost::Silent(self.patience)),
        }
    }

    /// The next reply, in the order of the commands.
    pub async fn receive(&mut self) -> Result<Reply, Lost> {
        loop {
            if let Some(reply) = resp::take(&mut self.input)? {
                return Ok(reply);
            }
            match timeout(self.patience, self.stream.read_buf(&mut self.input)).await {
                Ok(Ok(0)) => return Err(Lost::Closed),
                Ok(read) => read?,
                Err(_) => return Err(Lost::Silent(self.patience)),
            };
        }
    }

    /// One command, one reply.
    pub async fn call(&mut self, arguments: &[&[u8]]) -> Result<Reply, Lost> {
        let mut out = BytesMut::new();
        resp::encode(&mut out, arguments);
        self.send(&out).await?;
        self.receive().await
    }
}
