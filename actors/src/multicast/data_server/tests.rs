use bytes::Bytes;
use synod_runtime::identity::Incarnation;

use super::*;
use crate::multicast::message::Publisher;

/// Goal: however many messages wait for one that is lost, those of others are reported again.
#[test]
fn what_waits_for_ever_leaves_room_for_others() {
    let me = NodeId::new("a".parse().unwrap(), Incarnation(1));
    let mut server = DataServer::new(me.clone(), Arc::new(Group::new("news", vec![me.clone()])));
    let data = |publisher, number| {
        let mid = Mid { publisher: Publisher(publisher), number };
        Data { mid, stamp: Seq(0), lowest_open: 1, payload: Bytes::from_static(b"it rains") }
    };
    let mut now = Now::default();
    let (epoch, sequencer) = (Epoch(1), me.clone());
    let gossip =
        Gossip { epoch, sequencer, largest: Seq(0), checkpoint: None, version: 0, beat: 1 };
    // Nobody sends the first one.
    let waiting = (2..2 + REPORTS_MAX as u64).map(|number| data(1, number)).collect();
    let other = data(2, 1);
    let mut reported_at = Vec::new();
    for message in [
        DataMessage::Gossip(gossip),
        DataMessage::Store(waiting),
        DataMessage::Store(vec![other.clone()]),
        DataMessage::Query(Vec::new()),
        DataMessage::Query(Vec::new()),
    ] {
        let mut out = Effects::default();
        server.message(now, &me, message, &mut out);
        server.flush(now, &mut out);
        let reports = out.held.into_iter().flat_map(|letter| match letter.message {
            Message::Sequencer(SequencerMessage::Reported(pairs)) => pairs,
            _ => Vec::new(),
        });
        let reported: Vec<_> = reports.collect();
        assert!(reported.len() <= REPORTS_MAX + 1, "{}", reported.len());
        if reported.iter().any(|pair| pair.mid == Some(other.mid)) {
            reported_at.push(now.at);
        }
        now.at = now.at + REPORT_AGAIN_AFTER;
    }
    let looks = |n| Instant::default() + REPORT_AGAIN_AFTER * n;
    // At once; not when all others waited longer; and then first.
    assert_eq!(reported_at, [looks(2), looks(4)]);
}
