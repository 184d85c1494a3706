//! The Redis protocol as far as one command by one person needs it: send an array of bulk strings,
//! read one reply of any kind.

use std::fmt::Write as _;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

/// A reply, RESP2 and the RESP3 kinds that a node may send.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    Simple(String),
    Error(String),
    Integer(i64),
    Bulk(Vec<u8>),
    Nil,
    Array(Vec<Reply>),
}

#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error(transparent)]
    Io(#[from] std::io::Error),
    #[error("the answer is no Redis reply: {0}")]
    Malformed(String),
}

const BULK_BYTES_MAX: usize = 512 << 20;
const DEPTH_MAX: usize = 16;

pub struct Connection(BufReader<TcpStream>);

impl Connection {
    pub async fn open(address: &str) -> std::io::Result<Connection> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Connection(BufReader::new(stream)))
    }

    pub async fn call(&mut self, command: &[impl AsRef<[u8]>]) -> Result<Reply, ReadError> {
        self.0.get_mut().write_all(&encode(command)).await?;
        self.read(0).await
    }

    async fn read(&mut self, depth: usize) -> Result<Reply, ReadError> {
        if depth > DEPTH_MAX {
            return Err(ReadError::Malformed("nested too deeply".to_owned()));
        }
        let line = self.line().await?;
        let (kind, rest) = line.split_at_checked(1).unwrap_or(("", ""));
        match kind {
            "+" => Ok(Reply::Simple(rest.to_owned())),
            "-" => Ok(Reply::Error(rest.to_owned())),
            ":" => number(rest).map(Reply::Integer),
            "_" => Ok(Reply::Nil),
            "#" => Ok(Reply::Integer(i64::from(rest == "t"))),
            "," | "(" => Ok(Reply::Simple(rest.to_owned())),
            "$" | "=" => self.bulk(number(rest)?).await,
            "*" | "~" | ">" => self.array(number(rest)?, depth).await,
            "%" => self.array(number(rest)?.saturating_mul(2), depth).await,
            _ => Err(ReadError::Malformed(line)),
        }
    }

    async fn bulk(&mut self, length: i64) -> Result<Reply, ReadError> {
        let Ok(length) = usize::try_from(length) else { return Ok(Reply::Nil) };
        if length > BULK_BYTES_MAX {
            return Err(ReadError::Malformed(format!("a string of {length} bytes")));
        }
        let mut bytes = vec![0; length + 2];
        self.0.read_exact(&mut bytes).await?;
        bytes.truncate(length);
        Ok(Reply::Bulk(bytes))
    }

    async fn array(&mut self, count: i64, depth: usize) -> Result<Reply, ReadError> {
        let Ok(count) = usize::try_from(count) else { return Ok(Reply::Nil) };
        let mut items = Vec::new();
        for _ in 0..count {
            items.push(Box::pin(self.read(depth + 1)).await?);
        }
        Ok(Reply::Array(items))
    }

    async fn line(&mut self) -> Result<String, ReadError> {
        let mut line = String::new();
        self.0.read_line(&mut line).await?;
        match line.strip_suffix("\r\n") {
            Some(whole) => Ok(whole.to_owned()),
            None => Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into()),
        }
    }
}

fn number(text: &str) -> Result<i64, ReadError> {
    text.parse().map_err(|_| ReadError::Malformed(text.to_owned()))
}

pub fn encode(command: &[impl AsRef<[u8]>]) -> Vec<u8> {
    let mut out = format!("*{}\r\n", command.len()).into_bytes();
    for word in command {
        let word = word.as_ref();
        out.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        out.extend_from_slice(word);
        out.extend_from_slice(b"\r\n");
    }
    out
}

impl Reply {
    /// As redis-cli prints it to a pipe: values plain, one a line.
    pub fn plain(&self) -> String {
        match self {
            Reply::Simple(text) | Reply::Error(text) => text.clone(),
            Reply::Integer(number) => number.to_string(),
            Reply::Bulk(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            Reply::Nil => String::new(),
            Reply::Array(items) => {
                let mut out = String::new();
                for (index, item) in items.iter().enumerate() {
                    let lead = if index == 0 { "" } else { "\n" };
                    write!(out, "{lead}{}", item.plain()).expect("a string takes all");
                }
                out
            }
        }
    }

    pub fn json(&self) -> serde_json::Value {
        match self {
            Reply::Simple(text) | Reply::Error(text) => text.clone().into(),
            // 64-bit numbers are strings in all our JSON.
            Reply::Integer(number) => number.to_string().into(),
            Reply::Bulk(bytes) => String::from_utf8_lossy(bytes).into(),
            Reply::Nil => serde_json::Value::Null,
            Reply::Array(items) => items.iter().map(Reply::json).collect(),
        }
    }
}

/// `-MOVED 3999 10.0.0.12:7379`.
pub fn moved_to(error: &str) -> Option<&str> {
    let mut words = error.split(' ');
    (words.next()? == "MOVED").then(|| words.nth(1)).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn check(bytes: &'static [u8], expect: Result<Reply, &str>) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut asked = [0; 14];
            stream.read_exact(&mut asked).await.unwrap();
            stream.write_all(bytes).await.unwrap();
        });
        let reply = Connection::open(&address).await.unwrap().call(&["PING"]).await;
        assert_eq!(reply.map_err(|error| error.to_string()), expect.map_err(str::to_owned));
    }

    #[tokio::test]
    async fn replies_of_every_kind() {
        check(b"+PONG\r\n", Ok(Reply::Simple("PONG".into()))).await;
        check(b"-ERR no\r\n", Ok(Reply::Error("ERR no".into()))).await;
        check(b":-7\r\n", Ok(Reply::Integer(-7))).await;
        check(b"$3\r\na\nb\r\n", Ok(Reply::Bulk(b"a\nb".to_vec()))).await;
        check(b"$-1\r\n", Ok(Reply::Nil)).await;
        let array = Reply::Array(vec![Reply::Integer(1), Reply::Array(vec![Reply::Nil])]);
        check(b"*2\r\n:1\r\n*1\r\n_\r\n", Ok(array)).await;
    }

    #[tokio::test]
    async fn what_is_no_reply_is_refused() {
        check(b"HTTP/1.1 400\r\n", Err("the answer is no Redis reply: HTTP/1.1 400")).await;
        check(
            b"$99999999999\r\n",
            Err("the answer is no Redis reply: a string of 99999999999 bytes"),
        )
        .await;
        check(b"$5\r\nab", Err("early eof")).await;
    }

    #[test]
    fn redirects_name_their_target() {
        assert_eq!(moved_to("MOVED 3999 10.0.0.12:7379"), Some("10.0.0.12:7379"));
        assert_eq!(moved_to("ERR MOVED 1 x:1"), None);
        assert_eq!(moved_to("MOVED 1"), None);
    }
}
