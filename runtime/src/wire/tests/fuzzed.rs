//! Frames, hellos and bodies out of damaged bytes.

use super::*;
use crate::{
    address::SendError,
    identity::NodeName,
    message::{Fingerprint, decode},
    registry::directory::News,
    sim::fuzz,
};

/// The bytes of the wire format's document: every kind of body there is.
fn corpus() -> Vec<Vec<u8>> {
    ["a tell", "a hello", "a directory frame", "a failure"].map(golden::documented).into()
}

fn with_corpus(seed: u64, inputs: &[Vec<u8>], target: impl Fn(&[u8])) {
    let inputs: Vec<&[u8]> = inputs.iter().map(Vec::as_slice).collect();
    fuzz(seed, 40_000, &inputs, target);
}

#[test]
fn damaged_frames_are_refused_or_mean_what_they_say() {
    let all = corpus();
    let joined = all.concat();
    with_corpus(1, &[&all[..], &[joined]].concat(), |data| {
        for lane in Lane::ALL {
            let mut deframer = Deframer::with_limit(lane, 4096);
            let (mut came, size) = (0, 1 + usize::from(data.first().copied().unwrap_or(0)));
            for chunk in data.chunks(size) {
                deframer.push(Bytes::copy_from_slice(chunk));
                while let Ok(Some(frame)) = deframer.next() {
                    let mut again = BytesMut::new();
                    encode(&frame.header, lane, &frame.body, &mut again);
                    assert_eq!(data[came..came + again.len()], again[..]);
                    came += again.len();
                }
            }
        }
        if let Ok(frame) = decode_datagram(Bytes::copy_from_slice(data)) {
            let mut again = BytesMut::new();
            encode(&frame.header, Lane::Control, &frame.body, &mut again);
            assert_eq!(data, again);
        }
    });
}

#[test]
fn damaged_hellos_are_refused_or_are_of_this_cluster() {
    let [_, hello, ..] = &corpus()[..] else { unreachable!("there are four") };
    let body = hello[HEADER_BYTES..].to_vec();
    let certificate: NodeName = "a".parse().unwrap();
    let me: Hello = decode(&body).unwrap();
    with_corpus(2, &[body], |data| {
        if let Ok(hello) = Hello::check(data, &me, &certificate) {
            assert_eq!((&hello.cluster, &hello.node.name), (&me.cluster, &certificate));
            assert!(hello.role.len() <= ROLE_BYTES_MAX);
            // Hostile forms are only ever compared.
            for theirs in &hello.messages {
                for mine in &me.messages {
                    let _ = (mine.check(theirs), theirs.check(mine));
                }
            }
        }
    });
}

#[test]
fn damaged_bodies_are_refused_or_read_back_as_written() {
    let bodies: Vec<_> = corpus().iter().map(|frame| frame[HEADER_BYTES..].to_vec()).collect();
    with_corpus(3, &bodies, |data| {
        let _ = decode::<Fingerprint>(data);
        if let Ok(news) = decode::<News>(data) {
            let again = crate::message::encode(&news).unwrap();
            assert_eq!(decode::<News>(&again).unwrap(), news);
        }
        if let Ok(error) = decode::<SendError>(data) {
            let again = crate::message::encode(&error).unwrap();
            assert_eq!(decode::<SendError>(&again).unwrap(), error);
        }
    });
}
