//! How a new sequencer takes up what the ones before it left.

use std::collections::BTreeMap;

use synod_runtime::world::Instant;

use super::{
    Answer, OPEN_MAX,
    reign::{Open, Reign, Stored},
};
use crate::{
    election::message::Epoch,
    multicast::{
        group::{Group, Tally},
        history::{History, Verdict},
        message::{Adoption, Pair, Sealed, Seq},
        rules::{Rule, is_off},
    },
};

/// What a number holds by all answers.
#[derive(Debug, Clone, Copy)]
struct Best {
    record: Sealed,
    /// So many answers know it committed.
    certain: usize,
    /// So many answers hold it.
    copies: usize,
}

/// Begins a reign from the answers of the sealed commit servers (I3), and what was written down of the
/// largest number, which was read after they were sealed, where the group does so.
pub(super) fn settle(
    group: &Group,
    epoch: Epoch,
    answers: &[Answer],
    stored: Seq,
    now: Instant,
) -> Reign {
    let floor = answers.iter().map(|answer| answer.floor).max().unwrap_or_default();
    let known = answers.iter().map(|answer| answer.largest).max().unwrap_or_default().max(floor);
    let floor = if is_off(Rule::FloorInAnswer) { Seq(0) } else { floor };
    let settled = if is_off(Rule::FloorInAnswer) { Seq(0) } else { known };
    let best = best_of(answers, floor);
    let top = best.last_key_value().map_or(settled, |(seq, _)| (*seq).max(settled));
    // No more than that can be open above what is committed.
    let top = top.max(stored.min(Seq(settled.0.saturating_add(OPEN_MAX as u64))));
    let mut reign = Reign {
        epoch,
        committed: settled,
        assigned: top,
        open: BTreeMap::new(),
        history: History::default(),
        waiting: BTreeMap::new(),
        ready: std::collections::VecDeque::new(),
        fresh: Vec::new(),
        own: Vec::new(),
        known: BTreeMap::new(),
        announce: Vec::new(),
        gossip_at: now,
        beat: 0,
        resend_at: now,
        handover: None,
        hand_over_at: now,
        stored: group.maximum.is_written().then(|| Stored {
            upto: stored,
            on_its_way: None,
            held: std::collections::VecDeque::new(),
        }),
    };
    for (seq, one) in best.range(..=settled) {
        reign.history.note(*seq, &one.record.pair, group);
        // Whoever missed that it is committed hears it now.
        if one.certain < answers.len() {
            reign.announce.push((*seq, one.record.pair));
        }
    }
    if group.joining.is_some() {
        let records = best.values().map(|one| Sealed { committed: one.certain > 0, ..one.record });
        let (version, records) = (group.version, records.collect());
        let adoption = Adoption { epoch, version, floor, largest: settled, top, records };
        reign.handover = Some(Box::new(adoption));
    }
    let mut seq = settled;
    while seq < top {
        seq = seq.next();
        let pair = judge(group, &reign.history, best.get(&seq));
        reign.history.note(seq, &pair, group);
        let open = Open { pair, acknowledged: Tally::default(), sent: now };
        reign.open.insert(seq, open);
        reign.fresh.push((seq, pair));
    }
    reign
}

/// Of every number above the floor the record that counts.
fn best_of(answers: &[Answer], floor: Seq) -> BTreeMap<Seq, Best> {
    let mut best: BTreeMap<Seq, Best> = BTreeMap::new();
    let records = answers.iter().flat_map(|answer| &answer.records);
    for record in records.filter(|record| record.seq > floor) {
        let certain = usize::from(record.committed);
        let Some(known) = best.get_mut(&record.seq) else {
            best.insert(record.seq, Best { record: *record, certain, copies: 1 });
            continue;
        };
        known.copies += 1;
        known.certain += certain;
        let better = if is_off(Rule::HighestEpochCounts) {
            record.epoch < known.record.epoch
        } else {
            (record.committed, record.epoch) > (known.record.committed, known.record.epoch)
        };
        if better {
            known.record = *record;
        }
    }
    best
}

/// What an open number will hold. All lower ones have been judged.
fn judge(group: &Group, history: &History, best: Option<&Best>) -> Pair {
    let Some(best) = best else { return Pair::VOID };
    let pair = best.record.pair;
    let certain = best.certain > 0
        || is_off(Rule::CopiesAreNotCommitted) && best.copies >= group.k_commit.min(2);
    let Some(mid) = pair.mid.filter(|_| !certain && !is_off(Rule::OpenNumbersScanned)) else {
        return pair;
    };
    match history.place(mid, pair.lowest_open) {
        Verdict::Good => pair,
        Verdict::Duplicate | Verdict::Early | Verdict::Expired => Pair::VOID,
    }
}
