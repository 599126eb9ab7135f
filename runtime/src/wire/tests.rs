mod fuzzed;
mod golden;

use proptest::prelude::*;

use super::*;
use crate::identity::{Incarnation, NodeId};

fn header(kind: FrameKind, number: u64) -> FrameHeader {
    FrameHeader {
        kind,
        target: number,
        message: number ^ 1,
        correlation: number << 3,
        deadline_ms: 250,
        trace: !number,
    }
}

/// A few frames of very different sizes, and their bytes on `lane`.
fn sample(lane: Lane) -> (Vec<Frame>, Vec<u8>) {
    let mut bytes = BytesMut::new();
    let sizes = [0, 1, 17, 300, 5];
    let frames = sizes.iter().zip(1..).map(|(&size, number)| {
        let header = header(FrameKind::Ask, number);
        let body: Vec<u8> = (0..size).map(|at: usize| at.to_le_bytes()[0]).collect();
        encode(&header, lane, &body, &mut bytes);
        Frame { header, body: body.into() }
    });
    (frames.collect(), bytes.to_vec())
}

fn drain(deframer: &mut Deframer) -> Result<Vec<Frame>, FrameError> {
    let mut frames = Vec::new();
    while let Some(frame) = deframer.next()? {
        frames.push(frame);
    }
    Ok(frames)
}

#[test]
fn bytes_without_traces_are_the_same_for_every_trace() {
    let frame = |trace, body: &[u8]| {
        let header = FrameHeader { target: 7, trace, ..FrameHeader::new(FrameKind::Tell) };
        let mut bytes = BytesMut::new();
        encode(&header, Lane::User, body, &mut bytes);
        bytes.freeze()
    };
    let both = |trace| [frame(trace, b"one"), frame(0, b""), frame(trace, b"two")].concat();
    assert_eq!(without_traces(&both(5)), both(0));
    assert!(matches!(without_traces(&both(0)), std::borrow::Cow::Borrowed(_)), "not copied");
    // What is no frame, or only a part of one, is as it was.
    for other in [&b"anything but a frame, and longer than a header is"[..], &both(5)[..40]] {
        assert_eq!(without_traces(other), other);
    }
}

#[test]
fn frames_come_out_whole_wherever_the_network_cuts() {
    let (frames, bytes) = sample(Lane::User);
    for cut in 0..=bytes.len() {
        let mut deframer = Deframer::new(Lane::User);
        deframer.push(Bytes::copy_from_slice(&bytes[..cut]));
        let mut got = drain(&mut deframer).unwrap();
        deframer.push(Bytes::copy_from_slice(&bytes[cut..]));
        got.extend(drain(&mut deframer).unwrap());
        assert_eq!(got, frames, "cut at {cut}");
    }
    for size in 1..70 {
        let mut deframer = Deframer::new(Lane::User);
        let mut got = Vec::new();
        for chunk in bytes.chunks(size) {
            deframer.push(Bytes::copy_from_slice(chunk));
            got.extend(drain(&mut deframer).unwrap());
        }
        assert_eq!(got, frames, "chunks of {size}");
    }
}

#[test]
fn chunks_pushed_before_the_frames_are_taken_are_kept() {
    let (frames, bytes) = sample(Lane::Bulk);
    let mut deframer = Deframer::new(Lane::Bulk);
    for chunk in bytes.chunks(50) {
        deframer.push(Bytes::copy_from_slice(chunk));
    }
    assert_eq!(drain(&mut deframer).unwrap(), frames);
}

#[test]
fn a_frame_whole_in_its_chunk_is_not_copied() {
    let (_, bytes) = sample(Lane::Control);
    let chunk = Bytes::from(bytes);
    let within = chunk.as_ptr_range();
    let mut deframer = Deframer::new(Lane::Control);
    deframer.push(chunk);
    for frame in drain(&mut deframer).unwrap() {
        assert!(frame.body.is_empty() || within.contains(&frame.body.as_ptr()));
    }
}

#[test]
fn a_giant_length_is_refused_before_anything_is_allocated_for_it() {
    for length in [FRAME_BYTES_MAX + 1, u32::MAX] {
        let mut deframer = Deframer::new(Lane::User);
        deframer.push(Bytes::copy_from_slice(&length.to_le_bytes()));
        let refused = FrameError::TooLong { length, max: FRAME_BYTES_MAX };
        assert_eq!(deframer.next(), Err(refused));
        deframer.push(Bytes::from_static(&[0; 100]));
        assert_eq!(deframer.next(), Err(refused), "an error stays");
    }
    let mut small = Deframer::with_limit(Lane::User, 100);
    small.push(Bytes::copy_from_slice(&101_u32.to_le_bytes()));
    assert_eq!(small.next(), Err(FrameError::TooLong { length: 101, max: 100 }));
}

#[test]
fn every_field_of_the_header_is_checked() {
    let (_, good) = sample(Lane::User);
    let error_with = |at: usize, value: u8| {
        let mut bytes = good.clone();
        bytes[at] = value;
        let mut deframer = Deframer::new(Lane::User);
        deframer.push(bytes.into());
        deframer.next().unwrap_err()
    };
    assert_eq!(error_with(0, 39), FrameError::TooShort(39));
    assert_eq!(error_with(4, 9), FrameError::Version(9));
    assert_eq!(error_with(5, 11), FrameError::Kind(11));
    assert_eq!(error_with(6, 0), FrameError::Lane { found: 0, lane: Lane::User });
    assert_eq!(error_with(7, 1), FrameError::Flags(1));
}

#[test]
fn the_largest_body_fits_and_no_larger() {
    let mut bytes = BytesMut::new();
    let body = vec![7; BODY_BYTES_MAX];
    encode(&header(FrameKind::Tell, 1), Lane::Bulk, &body, &mut bytes);
    let mut deframer = Deframer::new(Lane::Bulk);
    deframer.push(bytes.freeze());
    assert_eq!(deframer.next().unwrap().unwrap().body, body);
}

#[test]
fn a_datagram_is_exactly_one_frame() {
    let mut bytes = BytesMut::new();
    encode(&header(FrameKind::Heartbeat, 3), Lane::Control, b"alive", &mut bytes);
    let bytes = bytes.freeze();
    assert_eq!(decode_datagram(bytes.clone()).unwrap().body, b"alive"[..]);
    for end in 0..bytes.len() {
        assert!(decode_datagram(bytes.slice(..end)).is_err(), "{end}");
    }
    assert!(decode_datagram([bytes, Bytes::from_static(b"x")].concat().into()).is_err());
}

#[test]
fn hashes_of_names_never_change() {
    // Published FNV-1a test vectors: other nodes may run another build.
    assert_eq!(name_hash(""), 0xcbf2_9ce4_8422_2325);
    assert_eq!(name_hash("a"), 0xaf63_dc4c_8601_ec8c);
    assert_eq!(name_hash("foobar"), 0x8594_4171_f739_67e8);
}

#[test]
fn a_hello_is_refused_by_name() {
    let node = |name: &str| NodeId::new(name.parse().unwrap(), Incarnation(7));
    let me = Hello {
        cluster: "bank".parse().unwrap(),
        node: node("a"),
        protocol_version: 1,
        role: "main".into(),
        start_nonce: 1,
        messages: Vec::new(),
    };
    let good = Hello { node: node("b"), ..me.clone() };
    let check = |hello: &Hello| {
        Hello::check(&hello.to_body(), &me, &"b".parse().unwrap()).map_err(|e| e.to_string())
    };
    assert_eq!(check(&good), Ok(good.clone()));
    let other = Hello { cluster: "shop".parse().unwrap(), ..good.clone() };
    assert_eq!(check(&other).unwrap_err(), "b is of cluster shop, a is of cluster bank");
    let liar = Hello { node: node("c"), ..good.clone() };
    assert_eq!(check(&liar).unwrap_err(), "the certificate is b's, the hello is c's");
    let newer = Hello { protocol_version: 2, ..good.clone() };
    assert_eq!(check(&newer).unwrap_err(), "b speaks protocol 2, this node speaks 1");
    let long = Hello { role: "x".repeat(65), ..good };
    assert_eq!(check(&long).unwrap_err(), "a role of 65 bytes, when 64 are allowed");
    assert!(Hello::check(b"junk", &me, &"b".parse().unwrap()).is_err());
}

proptest! {
    #[test]
    fn garbage_never_panics_and_never_yields_more_than_came(
        chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 0..20),
        plausible in any::<bool>(),
    ) {
        let mut deframer = Deframer::new(Lane::User);
        let came: usize = chunks.iter().map(Vec::len).sum();
        let mut bodies = 0;
        for mut chunk in chunks {
            if plausible && chunk.len() > 8 {
                // A length and a version that pass, so that the rest is looked at too.
                chunk[..5].copy_from_slice(&[60, 0, 0, 0, WIRE_VERSION]);
            }
            deframer.push(chunk.clone().into());
            while let Ok(Some(frame)) = deframer.next() {
                bodies += HEADER_BYTES + frame.body.len();
            }
            let _ = decode_datagram(chunk.into());
        }
        prop_assert!(bodies <= came);
    }

    #[test]
    fn whatever_is_encoded_comes_out_again(
        bodies in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..2000), 1..8),
        sizes in prop::collection::vec(1_usize..3000, 1..8),
        number in any::<u64>(),
    ) {
        let mut bytes = BytesMut::new();
        for (body, kind) in bodies.iter().zip(FrameKind::ALL) {
            encode(&header(kind, number), Lane::Consensus, body, &mut bytes);
        }
        let mut deframer = Deframer::new(Lane::Consensus);
        let mut got = Vec::new();
        let mut bytes = bytes.freeze();
        for size in sizes.iter().cycle() {
            if bytes.is_empty() {
                break;
            }
            deframer.push(bytes.split_to((*size).min(bytes.len())));
            got.extend(drain(&mut deframer).unwrap());
        }
        let wanted: Vec<Frame> = bodies.iter().zip(FrameKind::ALL)
            .map(|(body, kind)| Frame { header: header(kind, number), body: body.clone().into() })
            .collect();
        prop_assert_eq!(got, wanted);
    }
}
