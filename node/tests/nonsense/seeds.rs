//! Good inputs of each door: today's formats, as their files have them.

use bytes::Bytes;
use node::wire;

use crate::doors::joined;
use crate::golden;

pub fn of(door: &str) -> Vec<Vec<u8>> {
    match door {
        "resp" => requests(),
        "wire" => frames(),
        "record" => records(),
        "batch" => bytes_of("batch-1.hex"),
        "journal" => vec![joined(&golden::read_files("journal-1.hex"))],
        "snapshot" => snapshots(),
        "node_toml" => vec![golden::read("node-1.toml").into_bytes()],
        "members_toml" => vec![golden::read("members-1.toml").into_bytes()],
        _ => panic!("no samples for {door}"),
    }
}

fn bytes_of(file: &str) -> Vec<Vec<u8>> {
    golden::read_lines(file).into_iter().map(|(_, bytes)| bytes).collect()
}

fn requests() -> Vec<Vec<u8>> {
    let requests: [&[u8]; 6] = [
        b"*3\r\n$3\r\nSET\r\n$3\r\nkey\r\n$5\r\nvalue\r\n",
        b"*2\r\n$5\r\nHELLO\r\n$1\r\n3\r\n*1\r\n$4\r\nPING\r\n",
        b"PING\r\nset a \"b \\x00 c\" 'd'\r\n\r\n",
        b"*0\r\n*-1\r\n*1\r\n$0\r\n\r\n",
        b"*5\r\n$3\r\nSET\r\n$1\r\nk\r\n$0\r\n\r\n$2\r\nPX\r\n$4\r\n1000\r\n",
        b"*4\r\n$4\r\nONCE\r\n$1\r\n7\r\n$1\r\n1\r\n$4\r\nINCR\r\n*1\r\n$5\r\nMULTI\r\n",
    ];
    let long = format!("*2\r\n$3\r\nGET\r\n$9000\r\n{}\r\n", "k".repeat(9_000));
    let many = format!("*300\r\n{}", "$1\r\nx\r\n".repeat(300));
    let mut all: Vec<Vec<u8>> = requests.iter().map(|request| request.to_vec()).collect();
    all.extend([long.into_bytes(), many.into_bytes()]);
    all
}

fn frames() -> Vec<Vec<u8>> {
    let mut frames = bytes_of("wire-1.hex");
    frames.push(frames.concat());
    // Lists of the smallest elements cost the most memory for each byte.
    for values in [100, 20_000] {
        let message = paxos::Message::Chosen {
            first: paxos::Slot(1),
            values: vec![paxos::Value::Noop; values],
        };
        let mut frame = bytes::BytesMut::new();
        let len = wire::frame_len(&message).expect("it fits");
        wire::put_message(&mut frame, &message, len);
        frames.push(frame.to_vec());
    }
    frames
}

fn records() -> Vec<Vec<u8>> {
    let mut records = bytes_of("record-1.hex");
    let decoded = records.iter().map(|bytes| wire::decode_record(Bytes::from(bytes.clone())));
    let decoded: Vec<_> = decoded.map(|record| record.expect("a sample")).collect();
    records.push(wire::encode_records(&decoded).to_vec());
    records.extend(bytes_of("configuration-1.hex"));
    records.extend(bytes_of("configuration-2.hex"));
    records
}

fn snapshots() -> Vec<Vec<u8>> {
    let newest = golden::read_files("snapshot-1-2.hex").remove(0);
    let older = ("snapshot-00000000000000000003".to_owned(), newest.1.clone());
    vec![joined(std::slice::from_ref(&newest)), joined(&[older, newest])]
}
