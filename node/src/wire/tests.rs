//! Round trips, hostile bytes and limits. The bytes themselves are held in `tests/formats`.

use ::bytes::{BufMut, Bytes, BytesMut};
use paxos::{
    Accepted, Ballot, BatchId, Configuration, Heartbeat, LeaseTerms, Member, Message, NodeId,
    PromisedEntry, Record, Role, Slot, Value,
};
use proptest::prelude::*;

use super::*;

#[allow(dead_code, reason = "not all of it is wanted here")]
#[path = "../../tests/formats/samples.rs"]
mod samples;

use samples::{a_configuration, ballot, one_of_each};

fn ballots() -> impl Strategy<Value = Ballot> {
    (any::<u32>(), any::<u64>(), any::<u32>()).prop_map(|(configuration, round, node)| Ballot {
        configuration,
        round,
        node: NodeId(node),
    })
}

fn slots() -> impl Strategy<Value = Slot> {
    any::<u64>().prop_map(Slot)
}

fn batch_ids() -> impl Strategy<Value = BatchId> {
    (any::<u64>(), any::<u64>()).prop_map(|(incarnation, counter)| BatchId { incarnation, counter })
}

fn payloads() -> impl Strategy<Value = Bytes> {
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..64).prop_map(Bytes::from),
        (any::<u8>(), 16_000..40_000_usize).prop_map(|(byte, len)| Bytes::from(vec![byte; len])),
    ]
}

fn configurations() -> impl Strategy<Value = Configuration> {
    let member =
        (any::<bool>(), any::<u64>(), prop::collection::vec(any::<u8>(), 0..33), ".{0,20}")
            .prop_map(|(voter, incarnation, public_key, address)| Member {
                role: if voter { Role::Voter } else { Role::Learner },
                incarnation,
                public_key,
                client_address: format!("{address}:7379"),
                http_address: format!("{address}:7381"),
                name: "n".to_owned(),
                peer_address: address,
            });
    let members = prop::collection::btree_map(any::<u32>().prop_map(NodeId), member, 0..5);
    let terms = prop::option::of(
        (any::<u64>(), any::<u32>())
            .prop_map(|(lease_us, drift_percent)| LeaseTerms { lease_us, drift_percent }),
    );
    let rules = (terms, any::<u32>());
    (any::<u32>(), members, rules).prop_map(|(number, members, (lease_terms, store_version))| {
        let removed = [NodeId(number / 3), NodeId(77)].into();
        let slot = Slot(u64::from(number) * 5);
        Configuration { number, slot, members, removed, lease_terms, store_version }
    })
}

fn values() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Noop),
        (batch_ids(), payloads()).prop_map(|(id, payload)| Value::Batch { id, payload }),
        (batch_ids(), configurations())
            .prop_map(|(id, configuration)| Value::Configuration { id, configuration }),
    ]
}

fn heartbeats() -> impl Strategy<Value = Heartbeat> {
    (
        (any::<u64>(), any::<u64>(), any::<u64>(), ballots(), prop::option::of(ballots())),
        (prop::option::of(any::<u32>()), any::<bool>(), any::<bool>()),
        (prop::collection::vec(any::<u32>(), 0..9), slots(), slots(), any::<u32>()),
        (any::<u64>(), any::<bool>()),
    )
        .prop_map(|(clock, state, rest, lease)| Heartbeat {
            sequence: clock.0,
            echo: clock.1,
            echo_age_us: clock.2,
            promised: clock.3,
            leading: clock.4,
            happy_with: state.0.map(NodeId),
            can_accept: state.1,
            quorum_connected: state.2,
            connected: rest.0.into_iter().map(NodeId).collect(),
            first_unchosen: rest.1,
            hint: rest.2,
            priority: rest.3,
            lease_us: lease.0,
            asks_grant: lease.1,
        })
}

fn entries() -> impl Strategy<Value = PromisedEntry> {
    let accepted = prop_oneof![ballots().prop_map(Accepted::Under), Just(Accepted::Chosen)];
    (slots(), accepted, prop::option::of(values()))
        .prop_map(|(slot, accepted, value)| PromisedEntry { slot, accepted, value })
}

fn messages() -> impl Strategy<Value = Message> {
    let promise = (
        (ballots(), slots(), prop::option::of(slots()), slots()),
        prop::collection::vec(entries(), 0..4),
        any::<u64>(),
    )
        .prop_map(|((ballot, from_slot, to_slot, first_unchosen), entries, wall_ms)| {
            Message::Promise { ballot, from_slot, to_slot, entries, first_unchosen, wall_ms }
        });
    prop_oneof![
        (
            ballots(),
            slots(),
            prop::collection::vec((slots(), ballots()), 0..9),
            prop::option::of(ballots())
        )
            .prop_map(|(ballot, from_slot, holds, release)| Message::Prepare {
                ballot,
                from_slot,
                holds,
                release
            }),
        promise,
        (ballots(), ballots()).prop_map(|(ballot, promised)| Message::Nack { ballot, promised }),
        (ballots(), slots(), slots()).prop_map(|(ballot, first_kept, first_unchosen)| {
            Message::Behind { ballot, first_kept, first_unchosen }
        }),
        (ballots(), slots(), values(), slots())
            .prop_map(|(ballot, slot, value, hint)| Message::Accept { ballot, slot, value, hint }),
        (ballots(), slots(), slots()).prop_map(|(ballot, slot, first_unchosen)| {
            Message::Accepted { ballot, slot, first_unchosen }
        }),
        heartbeats().prop_map(Message::Heartbeat),
        Just(Message::Ping),
        (slots(), prop::collection::vec(values(), 0..4))
            .prop_map(|(first, values)| Message::Chosen { first, values }),
        slots().prop_map(|first_unchosen| Message::Learned { first_unchosen }),
        slots().prop_map(|first_unchosen| Message::CatchUp { first_unchosen }),
        (ballots(), any::<u64>()).prop_map(|(ballot, round)| Message::Confirm { ballot, round }),
        (ballots(), any::<u64>()).prop_map(|(ballot, round)| Message::Confirmed { ballot, round }),
        (ballots(), any::<u64>(), any::<u64>()).prop_map(|(ballot, sequence, length_us)| {
            Message::Grant { ballot, sequence, length_us }
        }),
        (ballots(), slots())
            .prop_map(|(ballot, first_unchosen)| Message::Release { ballot, first_unchosen }),
        any::<u64>().prop_map(|read| Message::ReadIndex { read }),
        (any::<u64>(), prop::option::of(slots()))
            .prop_map(|(read, slot)| Message::ReadFrom { read, slot }),
    ]
}

fn records() -> impl Strategy<Value = Record> {
    prop_oneof![
        ballots().prop_map(Record::Promised),
        (slots(), ballots(), values()).prop_map(|(slot, ballot, value)| Record::Accepted {
            slot,
            ballot,
            value
        }),
        (slots(), values()).prop_map(|(slot, value)| Record::Chosen { slot, value }),
        (slots(), slots()).prop_map(|(from, below)| Record::ChosenRange { from, below }),
        slots().prop_map(Record::TrimmedBelow),
        configurations().prop_map(Record::Configuration),
    ]
}

fn hello() -> Hello {
    Hello {
        version_oldest: 1,
        version_newest: 1,
        cluster: *b"\x00\x11\x22\x33\x44\x55\x66\x77\x88\x99\xaa\xbb\xcc\xdd\xee\xff",
        id: NodeId(2),
        incarnation: 0x0123_4567_89ab_cdef,
        to: NodeId(3),
        lane: Lane::Bulk,
        starts: 7,
        process: 0xfeed,
        former: [0xbeef, 0xcafe, 0, 0, 0, 0, 0, 0],
        promised: ballot(7),
        last_slot: Slot(12),
        store_version_newest: Some(2),
    }
}

fn encode(frame: &Frame) -> BytesMut {
    let mut bytes = BytesMut::new();
    put(&mut bytes, frame).expect("encode");
    bytes
}

/// Feeds `bytes` in pieces of `piece` bytes, as a socket might.
fn decode_in_pieces(bytes: &[u8], piece: usize) -> Result<Vec<Frame>, WireError> {
    let mut decoder = FrameDecoder::new(FRAME_BYTES_MAX);
    let mut frames = Vec::new();
    for piece in bytes.chunks(piece.max(1)) {
        decoder.spare().extend_from_slice(piece);
        while let Some(frame) = decoder.next_frame()? {
            frames.push(frame);
        }
    }
    Ok(frames)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn messages_survive_the_stream(messages in prop::collection::vec(messages(), 1..5), piece in 1..5000_usize) {
        let mut bytes = BytesMut::new();
        for message in &messages {
            let before = bytes.len();
            let len = frame_len(message).expect("generated messages are small");
            put_message(&mut bytes, message, len);
            prop_assert_eq!(bytes.len() - before, len);
        }
        let frames = decode_in_pieces(&bytes, piece).expect("decode");
        let sent = messages.into_iter().map(|m| Frame::Peer(PeerFrame::Paxos(m))).collect::<Vec<_>>();
        prop_assert_eq!(frames, sent);
    }

    #[test]
    fn records_survive(record in records()) {
        let mut bytes = Vec::new();
        encode_record(&record, &mut bytes);
        prop_assert_eq!(decode_record(Bytes::from(bytes)), Ok(record));
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..600), piece in 1..99_usize) {
        let _ = decode_in_pieces(&bytes, piece);
        let _ = decode_record(Bytes::from(bytes.clone()));
        let _ = decode_configuration(Bytes::from(bytes));
    }

    /// As above, past the checksum: a frame with a good head around arbitrary fields.
    #[test]
    fn arbitrary_bodies_never_panic(kind in 0..20_u8, message_kind in 0..16_u8, fields in prop::collection::vec(any::<u8>(), 0..600)) {
        let mut bytes = BytesMut::new();
        put_frame(&mut bytes, 1, kind, 0, |out| { out.put_u8(message_kind); out.put_slice(&fields) });
        let _ = decode_in_pieces(&bytes, 1 << 20);
        let mut record = vec![1, 0, 0, 0, 0, message_kind];
        record.extend_from_slice(&fields);
        let _ = decode_record(Bytes::from(record));
    }

    /// A message cut anywhere inside its fields is an error, never a shorter message.
    #[test]
    fn a_cut_message_is_refused(message in messages(), cut in any::<prop::sample::Index>()) {
        let mut fields = BytesMut::new();
        message::put_message(&mut fields, &message);
        let cut = cut.index(fields.len());
        let mut bytes = BytesMut::new();
        put_frame(&mut bytes, 1, frame_kind::PAXOS, 0, |out| out.put_slice(&fields[..cut]));
        prop_assert!(decode_in_pieces(&bytes, 1 << 20).is_err());
    }

    #[test]
    fn a_flipped_bit_is_noticed(message in messages(), bit in any::<prop::sample::Index>()) {
        let mut bytes = encode(&Frame::Peer(PeerFrame::Paxos(message)));
        let bit = bit.index(bytes.len() * 8);
        bytes[bit / 8] ^= 1 << (bit % 8);
        // An error, or (when the stated length grew) a frame whose rest never comes.
        if let Ok(frames) = decode_in_pieces(&bytes, 1 << 20) {
            prop_assert_eq!(frames, []);
        }
    }
}

/// Counters and golden files rely on one order of kinds.
#[test]
fn kinds_are_numbered_in_the_order_of_message_kinds() {
    for (index, message) in one_of_each(a_configuration()).iter().enumerate() {
        assert_eq!(kind_index(message), index, "{}", message.kind());
        assert_eq!(Message::KINDS[index], message.kind());
    }
}

/// PITFALLS 3: a head that lies about its length costs no memory.
#[test]
fn a_stated_length_reserves_nothing() {
    let mut decoder = FrameDecoder::new(FRAME_BYTES_MAX);
    let length = u32::try_from(FRAME_BYTES_MAX - FRAME_HEAD_LEN).expect("fits");
    decoder.spare().put_u32_le(length);
    decoder.spare().put_u32_le(0);
    assert_eq!(decoder.next_frame(), Ok(None));
    assert!(decoder.spare().capacity() <= 2 * READ_BYTES);

    let mut decoder = FrameDecoder::new(FRAME_BYTES_MAX);
    decoder.spare().put_u32_le(length + 1);
    decoder.spare().put_u32_le(0);
    assert!(matches!(decoder.next_frame(), Err(WireError::TooLong { .. })));
}

/// A count that lies is refused before a list is reserved, and a truthful one above the limit too.
#[test]
fn a_stated_count_reserves_nothing() {
    let chosen = |count: u32, values: usize| {
        let mut bytes = BytesMut::new();
        put_frame(&mut bytes, 1, frame_kind::PAXOS, 0, |out| {
            out.put_u8(9);
            out.put_u64_le(1);
            out.put_u32_le(count);
            out.put_bytes(0, values);
        });
        decode_in_pieces(&bytes, 1 << 20)
    };
    assert!(matches!(chosen(u32::MAX, 10), Err(WireError::Truncated { .. })));
    let many = LIST_COUNT_MAX + 1;
    let refused = chosen(u32::try_from(many).expect("fits"), many);
    assert_eq!(refused, Err(WireError::TooMany { what: "chosen values", count: many }));
}

/// PITFALLS 66: at the limit a value travels in every message; above it, it is refused as it is
/// sent, and does not block what comes after.
#[test]
fn values_at_the_limit_travel_and_above_it_are_refused() {
    let batch = |len: usize| Value::Batch { id: BatchId::default(), payload: vec![7; len].into() };
    let accept = |len| Message::Accept {
        ballot: Ballot::ZERO,
        slot: Slot(1),
        value: batch(len),
        hint: Slot(1),
    };
    let small = vec![batch(256 << 10), batch(VALUE_BYTES_MAX)];
    for message in [
        accept(VALUE_BYTES_MAX - 1),
        accept(VALUE_BYTES_MAX),
        Message::Chosen { first: Slot(1), values: small },
    ] {
        let bytes = encode(&Frame::Peer(PeerFrame::Paxos(message.clone())));
        let frames = decode_in_pieces(&bytes, 1 << 16).expect("decode");
        assert_eq!(frames, [Frame::Peer(PeerFrame::Paxos(message))]);
    }
    let mut out = BytesMut::new();
    let too_long = Frame::Peer(PeerFrame::Paxos(accept(FRAME_BYTES_MAX)));
    assert!(matches!(put(&mut out, &too_long), Err(WireError::TooLong { .. })));
    assert!(out.is_empty(), "a refused frame left bytes behind");
}

/// PITFALLS 96: a newer release's bytes are an error that says what to do, for frames and records.
#[test]
fn newer_versions_are_named() {
    let mut bytes = BytesMut::new();
    put_frame(&mut bytes, WIRE_VERSION + 1, frame_kind::PAXOS, 0, |out| out.put_u8(8));
    let error = decode_in_pieces(&bytes, 99).expect_err("newer");
    assert_eq!(
        error.to_string(),
        "frame version 2 is newer than 1, the newest that this release reads"
    );
    let next = RECORD_VERSION + 1;
    let error = decode_record(Bytes::copy_from_slice(&[next, 0, 0, 0, 0, 1])).expect_err("newer");
    assert_eq!(
        error.to_string(),
        format!(
            "record version {next} is newer than {RECORD_VERSION}, the newest that this release reads"
        )
    );
    let error = decode_record(Bytes::from_static(&[0, 0, 0, 0, 0, 1])).expect_err("older");
    assert!(matches!(error, WireError::OlderVersion { .. }));
}

/// A hello of a later release has more fields; an older reader takes those that it knows.
#[test]
fn a_longer_hello_is_read() {
    let mut bytes = BytesMut::new();
    put_frame(&mut bytes, HANDSHAKE_VERSION, frame_kind::HELLO, 0, |out| {
        hello().put(out);
        out.put_slice(b"fields of tomorrow");
    });
    assert_eq!(decode_in_pieces(&bytes, 99), Ok(vec![Frame::Hello(hello())]));
}

/// Versions overlap or they do not; nobody guesses.
#[test]
fn versions_are_agreed_on() {
    let agree = |oldest, newest| {
        Hello { version_oldest: oldest, version_newest: newest, ..hello() }.agree()
    };
    assert_eq!(agree(1, 1), Some(1));
    assert_eq!(agree(1, 2), Some(1));
    assert_eq!(agree(2, 3), None);
    assert_eq!(agree(0, 0), None);
}

/// Small payloads do not keep the receive buffer alive, large ones are not copied.
#[test]
fn only_large_payloads_are_slices_of_the_receive_buffer() {
    for (len, is_slice) in [(100, false), (16 << 10, false), (40 << 10, true)] {
        let message = Message::Chosen {
            first: Slot(1),
            values: vec![Value::Batch { id: BatchId::default(), payload: vec![1; len].into() }],
        };
        let mut decoder = FrameDecoder::new(FRAME_BYTES_MAX);
        decoder.spare().extend_from_slice(&encode(&Frame::Peer(PeerFrame::Paxos(message))));
        let buffer = decoder.buffer.as_ptr_range();
        let frame = decoder.next_frame().expect("decode").expect("whole");
        let Frame::Peer(PeerFrame::Paxos(Message::Chosen { values, .. })) = frame else {
            panic!("another frame")
        };
        let Value::Batch { payload, .. } = &values[0] else { panic!("another value") };
        assert_eq!(buffer.contains(&payload.as_ptr()), is_slice, "payload of {len} bytes");
    }
}
