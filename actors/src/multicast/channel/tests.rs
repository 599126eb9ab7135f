use proptest::prelude::*;

use super::*;

/// All packets of what is said, one look after every `pause` things.
fn packets(said: &[Bytes], parity: u8, pause: usize) -> Vec<Packet> {
    let mut cutter = Cutter::new(7, parity, false);
    let mut all = Vec::new();
    for (at, one) in said.iter().enumerate() {
        all.extend(cutter.say(one).expect("it fits"));
        if (at + 1) % pause == 0 {
            all.extend(cutter.look(0));
        }
    }
    all.extend(cutter.look(0));
    assert!(!cutter.holds());
    all
}

fn said() -> impl Strategy<Value = Vec<Bytes>> {
    let one = prop_oneof![
        8 => prop::collection::vec(any::<u8>(), 0..64),
        1 => prop::collection::vec(any::<u8>(), PART_BYTES - 1..4 * PART_BYTES),
    ];
    prop::collection::vec(one.prop_map(Bytes::from), 1..40)
}

/// The sum that a piece belongs to, by the number of its first piece.
fn sum_of(all: &[Packet], number: u64) -> u64 {
    let mut firsts = all.iter().filter_map(|packet| match packet.content {
        Content::Sum { first, count, .. } => {
            (first..first + u64::from(count)).contains(&number).then_some(first)
        }
        Content::Piece(_) => None,
    });
    firsts.next().expect("every piece is in a sum")
}

proptest! {
    /// Goal: of the pieces of every sum any one may be lost, and all that was said comes, once and in
    /// order.
    #[test]
    fn any_one_lost_piece_of_a_sum_comes_back(
        said in said(),
        parity in 1..=PARITY_MAX,
        pause in 1_usize..9,
        luck in prop::collection::vec(any::<bool>(), 256),
    ) {
        let all = packets(&said, parity, pause);
        let (mut gatherer, mut hurt) = (Gatherer::default(), std::collections::BTreeSet::new());
        let (mut heard, mut lost) = (Vec::new(), 0);
        for (at, packet) in all.iter().enumerate() {
            if let Content::Piece(piece) = &packet.content
                && luck[at % luck.len()]
                && hurt.insert(sum_of(&all, piece.number))
            {
                lost += 1;
                continue;
            }
            heard.extend(gatherer.take(packet.clone()));
        }
        prop_assert_eq!(gatherer.mended(), lost);
        // What came back came with its sum, behind what was not lost.
        let sorted = |mut all: Vec<Bytes>| { all.sort(); all };
        prop_assert_eq!(sorted(heard), sorted(said));
    }

    /// Goal: whatever is lost, doubled or late, nothing is heard that was not said, and nothing twice.
    #[test]
    fn nothing_is_heard_that_was_not_said_and_nothing_twice(
        lens in prop::collection::vec(0..3 * PART_BYTES, 1..40),
        parity in 0..=PARITY_MAX,
        order in prop::collection::vec((any::<prop::sample::Index>(), 0..10_u8), 1..300),
    ) {
        // Each differs from all others.
        let said: Vec<Bytes> = lens.iter().enumerate().map(|(at, len)| {
            let at = u32::try_from(at).unwrap().to_le_bytes();
            at.iter().copied().cycle().take(len + 4).collect()
        }).collect();
        let all = packets(&said, parity, 3);
        let mut gatherer = Gatherer::default();
        let mut heard = Vec::new();
        for (index, kind) in order {
            let packet = index.get(&all).clone();
            heard.extend(gatherer.take(packet.clone()));
            if kind == 0 {
                heard.extend(gatherer.take(packet));
            }
        }
        let count = heard.len();
        heard.sort();
        heard.dedup();
        prop_assert_eq!(count, heard.len());
        prop_assert!(heard.iter().all(|one| said.contains(one)));
    }

    /// Goal: packets of somebody who means harm cost no more than room for a few, and break nothing.
    #[test]
    fn strange_packets_do_no_harm(
        strange in prop::collection::vec(
            (any::<u64>(), any::<u16>(), any::<u16>(), any::<u8>(), 0..2 * PART_BYTES, any::<bool>()),
            1..200,
        ),
    ) {
        let mut gatherer = Gatherer::default();
        for (number, before, after, count, len, is_sum) in strange {
            let bytes = Bytes::from(vec![count; len]);
            let content = match is_sum {
                true => Content::Sum { first: number, count, sum: bytes },
                false => Content::Piece(Piece { number, before, after, part: bytes }),
            };
            gatherer.take(Packet { stream: 1, content });
            prop_assert!(gatherer.pieces.len() as u64 <= WINDOW + 1);
            prop_assert!(gatherer.sums.len() <= SUMS_MAX);
        }
    }
}

#[test]
fn what_is_too_large_for_datagrams_is_left_to_others() {
    let mut cutter = Cutter::new(1, 4, false);
    assert_eq!(cutter.say(&Bytes::from(vec![1; PIECES_MAX * PART_BYTES + 1])), None);
    let said = cutter.say(&Bytes::from(vec![1; PIECES_MAX * PART_BYTES])).expect("it fits");
    assert_eq!(said.len(), PIECES_MAX + 4);
}

/// Goal: who does not know of a pace takes a way without one as ever, and is taken so.
#[test]
fn a_way_without_a_pace_is_said_as_before_there_was_one() {
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    enum Older {
        Streams,
        Datagrams { parity: u8 },
    }
    let bytes = |way: &Way| rmp_serde::to_vec(way).unwrap();
    for (way, older) in [
        (Way::Streams, Older::Streams),
        (Way::Datagrams { parity: 8, paced: false }, Older::Datagrams { parity: 8 }),
    ] {
        assert_eq!(rmp_serde::from_slice::<Older>(&bytes(&way)).unwrap(), older);
        assert_eq!(rmp_serde::from_slice::<Way>(&rmp_serde::to_vec(&older).unwrap()).unwrap(), way);
    }
    let paced = Way::Datagrams { parity: 8, paced: true };
    assert_eq!(rmp_serde::from_slice::<Way>(&bytes(&paced)).unwrap(), paced);
}

#[test]
fn a_sender_that_was_started_anew_is_heard_from_its_first_word() {
    let mut gatherer = Gatherer::default();
    let (mut old, mut new) = (Cutter::new(1, 0, false), Cutter::new(2, 0, false));
    let words = |word: &'static str| Bytes::from_static(word.as_bytes());
    for _ in 0..300 {
        let said = old.say(&words("old")).expect("it fits");
        said.into_iter().for_each(|one| drop(gatherer.take(one)));
    }
    let said = new.say(&words("new")).expect("it fits");
    let heard: Vec<_> = said.into_iter().flat_map(|one| gatherer.take(one)).collect();
    assert_eq!(heard, [words("new")]);
}
