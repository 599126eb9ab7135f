//! The machine against the source's figures.

use super::{tests::name, *};

fn steps(machine: &Candidate) -> Vec<u16> {
    machine.trace().iter().map(|trace| trace.step).collect()
}

fn deliver(machines: &mut [Candidate], from: usize, deeds: Vec<Deed>, now: Instant) {
    for deed in deeds {
        let (at, more) = match deed {
            Deed::Send(to, letter) => {
                let to = machines.iter().position(|one| one.me == to).unwrap();
                let sender = machines[from].me.clone();
                (to, machines[to].letter(now, &sender, letter))
            }
            Deed::Initialise => (from, machines[from].ready(now)),
            Deed::AskProvider | Deed::Remap(_) | Deed::Release(_) => continue,
        };
        deliver(machines, at, more, now);
    }
}

fn round(machines: &mut [Candidate], view: u64, present: &[usize]) {
    let (now, id) = (Instant::from_nanos(view), ViewId { epoch: view, verdicts: 0 });
    for node in present {
        let names = present.iter().map(|node| name(*node));
        let asks = machines[*node].view(now, id, names);
        assert_eq!(asks, [Deed::AskProvider]);
    }
    // The last first: so each figure's every branch is taken.
    for node in present.iter().rev() {
        let class = if *node == 2 { Class::Secondary } else { Class::Spare };
        let deeds = machines[*node].provider(now, class);
        deliver(machines, *node, deeds, now);
    }
}

/// Goal: the steps are those of figures 4, 6 and 7, in their order.
#[test]
fn the_trace_of_a_round_reads_as_the_figures() {
    let mut machines: Vec<_> = (0..3).map(|node| Candidate::new(name(node)).traced()).collect();
    // Nobody was primary: FIG. 6, left side. The secondary wins although its name is last. It visits
    // the others, who are locked yet (702 waits for 608), and wins once both were disqualified.
    round(&mut machines, 1, &[0, 1, 2]);
    assert!(machines[2].is_primary());
    assert!(machines.iter().all(|one| one.candidate() == Some(&name(2))));
    let winner = steps(&machines[2]);
    let expected = [401, 402, 404, 602, 604, 606, 608, 610, 612];
    assert_eq!(winner[..expected.len()], expected);
    let order = [612, 408, 410, 412, 624];
    let at: Vec<_> = order.map(|step| winner.iter().position(|one| *one == step).unwrap()).into();
    assert!(at.is_sorted(), "{winner:?}");
    assert!(!winner.contains(&614));
    // Node 0 was disqualified by what waited for its lock, and visited nobody.
    let loser = steps(&machines[0]);
    let expected = [401, 402, 404, 602, 604, 606, 608, 702, 704, 706, 614];
    assert_eq!((&loser[..expected.len()], loser.contains(&612)), (&expected[..], false));
    assert_eq!(loser.last(), Some(&412), "its requesters go on");
    // Node 1 visited one that outranks it.
    let order = [608, 610, 612, 614, 408, 412];
    let other = steps(&machines[1]);
    let at: Vec<_> = order.map(|step| other.iter().position(|one| *one == step)).into();
    assert!(at.is_sorted() && at[0].is_some(), "{other:?}");

    // It lives: FIG. 6, right side. No re-map, nothing is initialised; it alone visits.
    for one in &mut machines {
        one.trace = Some(Vec::new());
    }
    round(&mut machines, 2, &[0, 1, 2]);
    let host = steps(&machines[2]);
    assert_eq!(host, [401, 402, 404, 602, 616, 618, 412, 620, 624, 624]);
    for one in &machines[..2] {
        assert_eq!(steps(one), [401, 402, 404, 602, 616, 618, 702, 706, 412]);
    }

    // It is gone: the spare of the lower name takes over, from the one it outranks.
    round(&mut machines, 3, &[0, 1]);
    assert!(machines[0].is_primary() && machines[1].candidate() == Some(&name(0)));
    assert!(machines[2].is_primary, "it has not heard of it");
    let out = machines[2].view(Instant::default(), ViewId { epoch: 3, verdicts: 0 }, [name(0)]);
    assert!(out.is_empty() && !machines[2].is_primary() && machines[2].open_at().is_none());
}

/// Goal: one that joins asks the primary, is disqualified, and is not visited in turn (622).
#[test]
fn a_primary_skips_those_that_it_has_spoken_with() {
    let mut machines: Vec<_> = (0..3).map(|node| Candidate::new(name(node)).traced()).collect();
    round(&mut machines, 1, &[1, 2]);
    assert!(machines[2].is_primary());
    machines[2].trace = Some(Vec::new());
    let (now, id) = (Instant::default(), ViewId { epoch: 2, verdicts: 0 });
    let all = || (0..3).map(name);
    for one in &mut machines {
        one.view(now, id, all());
    }
    // The newcomer's visit waits for the primary's lock.
    let letter = Letter { view: id, class: Class::Spare, word: Word::Visit };
    assert!(machines[2].letter(now, &name(0), letter).is_empty());
    let deeds = machines[2].provider(now, Class::Spare);
    let visits =
        deeds.iter().filter(|deed| matches!(deed, Deed::Send(_, Letter { word: Word::Visit, .. })));
    assert_eq!(visits.count(), 1, "node 1 alone: {deeds:?}");
    let skipped = Trace { step: 622, other: Some(name(0)) };
    assert!(machines[2].trace().contains(&skipped));
}

#[test]
fn how_long_requesters_were_held_off_is_known() {
    let mut alone = Candidate::new(name(0));
    let at = |ms: u64| Instant::from_nanos(ms * 1_000_000);
    alone.view(at(100), ViewId::default(), [name(0)]);
    assert_eq!(alone.longest_hold(at(150)), Duration::from_millis(50));
    assert_eq!(alone.provider(at(160), Class::Spare), [Deed::Remap(name(0)), Deed::Initialise]);
    assert_eq!(alone.ready(at(400)), [Deed::Release(name(0))]);
    assert_eq!(alone.longest_hold(at(9_000)), Duration::from_millis(300));
    assert_eq!(alone.open_at(), Some(&name(0)));
}
