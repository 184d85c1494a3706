//! etcd by its own protocol: gRPC, which is HTTP/2 with protobuf messages, of which we need three.
//!
//! A request under way is one HTTP/2 stream. The streams share a few connections, as etcd's own
//! benchmark tool does (`--conns` below `--clients`): a connection a client costs etcd more.

use std::time::Instant;

use bytes::{BufMut, Bytes, BytesMut};
use h2::client::SendRequest;
use http::Request;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use tokio::net::TcpStream;

use super::{Failed, Measured, Stopwatch, Timing, Workload, is_read, random_key, together};

/// Streams that share one connection, at most.
const STREAMS_PER_CONNECTION: usize = 16;

/// Measures the member at `address`.
pub fn measure(address: &str, workload: Workload, timing: Timing) -> Result<Measured, Failed> {
    let address = address.to_owned();
    super::on_one_thread(async move {
        let streams = workload.clients * workload.pipeline;
        let mut connections = Vec::new();
        for _ in 0..streams.div_ceil(STREAMS_PER_CONNECTION) {
            connections.push(Grpc::connect(&address).await?);
        }
        let clients = (0..streams)
            .map(|index| {
                let grpc = connections[index % connections.len()].clone();
                client(grpc, index as u64, workload, timing)
            })
            .collect();
        together(clients, timing).await
    })
}

/// The member that leads: the one whose own id is the leader's.
pub async fn leader(members: &[String]) -> Result<String, Failed> {
    let mut last = Failed::new("", "no member was given");
    for member in members {
        match leads(member).await {
            Ok(true) => return Ok(member.clone()),
            Ok(false) => last = Failed::new(member, "does not lead"),
            Err(failed) => last = failed,
        }
    }
    Err(last)
}

async fn leads(member: &str) -> Result<bool, Failed> {
    let mut grpc = Grpc::connect(member).await?;
    let status = grpc.call("/etcdserverpb.Maintenance/Status", Bytes::new()).await?;
    // StatusResponse { header = 1 { member_id = 2 }, leader = 4 }
    let mut own = None;
    let mut leader = None;
    for (number, field) in fields(&status) {
        match (number, field) {
            (1, Field::Bytes(header)) => {
                own =
                    fields(header).into_iter().find_map(|(number, field)| match (number, field) {
                        (2, Field::Varint(id)) => Some(id),
                        _ => None,
                    });
            }
            (4, Field::Varint(id)) => leader = Some(id),
            _ => {}
        }
    }
    Ok(leader.is_some() && leader == own)
}

async fn client(
    mut grpc: Grpc,
    seed: u64,
    workload: Workload,
    timing: Timing,
) -> Result<Stopwatch, Failed> {
    let mut rng = SmallRng::seed_from_u64(seed);
    let value = vec![b'v'; workload.value_bytes];
    let mut stopwatch = Stopwatch::start(timing);
    loop {
        let key = random_key(&mut rng);
        let mut message = BytesMut::new();
        // PutRequest and RangeRequest { key = 1 }, PutRequest { value = 2 }. A RangeRequest that says
        // no more is linearizable.
        put_bytes(&mut message, 1, &key);
        let path = match is_read(&mut rng, workload) {
            true => "/etcdserverpb.KV/Range",
            false => {
                put_bytes(&mut message, 2, &value);
                "/etcdserverpb.KV/Put"
            }
        };
        let sent = Instant::now();
        grpc.call(path, message.freeze()).await?;
        if !stopwatch.answered(sent, 1) {
            return Ok(stopwatch);
        }
    }
}

/// One HTTP/2 connection; clones share it.
#[derive(Clone)]
struct Grpc {
    address: String,
    requests: SendRequest<Bytes>,
}

impl Grpc {
    async fn connect(address: &str) -> Result<Grpc, Failed> {
        let stream = TcpStream::connect(address).await.map_err(|e| Failed::new(address, e))?;
        stream.set_nodelay(true).map_err(|e| Failed::new(address, e))?;
        let (requests, connection) =
            h2::client::handshake(stream).await.map_err(|e| Failed::new(address, e))?;
        // It ends when the last clone is dropped; its errors reach the requests under way.
        tokio::spawn(connection);
        Ok(Grpc { address: address.to_owned(), requests })
    }

    /// One unary call: the message of the answer.
    async fn call(&mut self, path: &str, message: Bytes) -> Result<Bytes, Failed> {
        let address = self.address.clone();
        let failed = |error: h2::Error| Failed::new(&address, error);
        let request = Request::post(format!("http://{address}{path}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())
            .expect("the request is well formed");
        // A message in gRPC: one byte (0: not compressed), four bytes of length, the message.
        let mut body = BytesMut::with_capacity(5 + message.len());
        body.put_u8(0);
        body.put_u32(message.len() as u32);
        body.put_slice(&message);
        self.requests = self.requests.clone().ready().await.map_err(failed)?;
        let (answer, mut sending) = self.requests.send_request(request, false).map_err(failed)?;
        sending.send_data(body.freeze(), true).map_err(failed)?;
        let answer = answer.await.map_err(failed)?;
        check_status(&address, answer.headers())?;
        let mut stream = answer.into_body();
        let mut received = BytesMut::new();
        while let Some(chunk) = stream.data().await {
            let chunk = chunk.map_err(failed)?;
            // What was read may be sent again; an error here means that the stream has ended.
            let _ = stream.flow_control().release_capacity(chunk.len());
            received.extend_from_slice(&chunk);
        }
        if let Some(trailers) = stream.trailers().await.map_err(failed)? {
            check_status(&address, &trailers)?;
        }
        match received.len() {
            0..5 => Err(Failed::new(&address, "an answer without a message")),
            _ => Ok(received.freeze().slice(5..)),
        }
    }
}

/// gRPC says how a call ended in the trailers, or in the headers when it failed at once.
fn check_status(address: &str, headers: &http::HeaderMap) -> Result<(), Failed> {
    match headers.get("grpc-status") {
        None => Ok(()),
        Some(status) if status == "0" => Ok(()),
        Some(status) => {
            let text = headers.get("grpc-message").and_then(|text| text.to_str().ok());
            let status = status.to_str().unwrap_or("?");
            Err(Failed::new(address, format!("gRPC status {status}: {}", text.unwrap_or(""))))
        }
    }
}

/// A field of a protobuf message, as far as we read them.
#[derive(Debug, PartialEq, Eq)]
enum Field<'a> {
    Varint(u64),
    Bytes(&'a [u8]),
}

fn put_bytes(message: &mut BytesMut, number: u64, bytes: &[u8]) {
    put_varint(message, number << 3 | 2);
    put_varint(message, bytes.len() as u64);
    message.put_slice(bytes);
}

fn put_varint(message: &mut BytesMut, mut value: u64) {
    while value >= 0x80 {
        message.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    message.put_u8(value as u8);
}

fn take_varint(message: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = message.split_first()?;
        *message = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// The fields of a message, up to the first that we cannot read.
fn fields(mut message: &[u8]) -> Vec<(u64, Field<'_>)> {
    let mut fields = Vec::new();
    while let Some(tag) = take_varint(&mut message) {
        let field = match tag & 7 {
            0 => take_varint(&mut message).map(Field::Varint),
            2 => take_varint(&mut message)
                .and_then(|length| message.split_at_checked(length as usize))
                .map(|(bytes, rest)| {
                    message = rest;
                    Field::Bytes(bytes)
                }),
            _ => None,
        };
        match field {
            Some(field) => fields.push((tag >> 3, field)),
            None => break,
        }
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protobuf_there_and_back() {
        let mut message = BytesMut::new();
        put_bytes(&mut message, 1, b"key");
        put_varint(&mut message, 4 << 3);
        put_varint(&mut message, u64::MAX);
        let expected = vec![(1, Field::Bytes(&b"key"[..])), (4, Field::Varint(u64::MAX))];
        assert_eq!(fields(&message), expected);
        assert_eq!(fields(&message[..3]), vec![], "cut in the middle of a field");
    }
}
