//! Scenes of servers that are replaced: each plays well, and badly without its rule.

use std::sync::Arc;

use synod::multicast::{
    group::Group,
    message::{CommitMessage, Message, ReceiverMessage, SequencerMessage},
};

use crate::{
    judge::{Broken, broken},
    stage::{
        Stage,
        Way::{self, Goes, Lost},
    },
};

/// Who serves nothing at first.
const SPARE: usize = 3;

fn all(_: usize, _: usize, _: &Message) -> Way {
    Goes
}

/// Nobody hears of that node, nor it of anybody.
fn without(node: usize) -> impl Fn(usize, usize, &Message) -> Way {
    move |from, to, _| if from == node || to == node { Lost } else { Goes }
}

/// Whether a message tells a commit server what is committed.
const fn is_news(message: &Message) -> bool {
    matches!(
        message,
        Message::Committed(_)
            | Message::Commit(CommitMessage::Submit { .. } | CommitMessage::PeerAnswer { .. })
    )
}

/// Three servers. The number 1 is on the disks of 0 and 2, and 1 never heard of it; then 2 is lost,
/// and the spare one is on its way to its place.
fn a_server_is_lost() -> Result<(Stage, Arc<Group>), Broken> {
    let mut stage = Stage::new(3, 2, 2);
    stage.lead(0);
    stage.run(200, without(1))?;
    stage.publish(0, 1, 1);
    stage.run(200, without(1))?;
    stage.crash(2);
    stage.nodes[2].lost = true;
    let (out, comes) = (stage.nodes[2].id.clone(), stage.nodes[SPARE].id.clone());
    let coming = Arc::new(stage.nodes[0].group.replacing(&out, comes).expect("it can be so"));
    [0, 1, SPARE].into_iter().for_each(|node| stage.regroup(node, &coming));
    Ok((stage, coming))
}

/// The new one has what it needs, and 1 has still not heard of the number; then 0 is lost too, and 1
/// goes on with the new one alone, which must remember it.
pub(crate) fn a_newcomer_is_all_that_remembers() -> Result<(), Broken> {
    let (mut stage, coming) = a_server_is_lost()?;
    stage.lead(0);
    stage.run(1_500, |_, to, message| match to {
        1 | SPARE if is_news(message) => Lost,
        1 if matches!(message, Message::Receiver(_)) => Lost,
        _ => Goes,
    })?;
    if !stage.is_in(SPARE) {
        return broken("the new one is not in".to_owned());
    }
    let done = coming.joined(&stage.nodes[SPARE].id).expect("it is on its way");
    let done = Arc::new(done);
    [0, 1, SPARE].into_iter().for_each(|node| stage.regroup(node, &done));
    stage.crash(0);
    stage.nodes[0].lost = true;
    stage.finish()
}

/// The new one has nothing yet when 0 is cut off: nothing may go on without 0.
pub(crate) fn a_newcomer_knows_nothing_yet() -> Result<(), Broken> {
    let (mut stage, _) = a_server_is_lost()?;
    stage.lead(1);
    stage.run(300, without(0))?;
    stage.publish(1, 2, 1);
    stage.run(500, without(0))?;
    // The old one's place is taken in the end, so that all can be well.
    stage.lead(0);
    stage.run(500, all)?;
    stage.finish()
}

/// A server was only cut off when it was replaced. It has not heard of that, and leads.
pub(crate) fn a_replaced_server_leads() -> Result<(), Broken> {
    let mut stage = Stage::new(3, 2, 2);
    stage.lead(0);
    stage.run(200, all)?;
    let (out, comes) = (stage.nodes[2].id.clone(), stage.nodes[SPARE].id.clone());
    let coming = Arc::new(stage.nodes[0].group.replacing(&out, comes.clone()).expect("it can be"));
    [0, 1, SPARE].into_iter().for_each(|node| stage.regroup(node, &coming));
    stage.lead(0);
    stage.run(1_500, without(2))?;
    let done = Arc::new(coming.joined(&comes).expect("it is on its way"));
    [0, 1, SPARE].into_iter().for_each(|node| stage.regroup(node, &done));
    // 2 and 0 are together, and then 1 and the new one.
    stage.lead(2);
    let old = |from, to, _: &Message| match (from, to) {
        (0 | 2, 0 | 2) => Goes,
        _ => Lost,
    };
    stage.run(300, old)?;
    stage.publish(2, 1, 1);
    stage.run(500, old)?;
    stage.crash(2);
    stage.nodes[2].lost = true;
    stage.lead(1);
    stage.run(300, without(0))?;
    stage.publish(1, 2, 1);
    stage.run(500, without(0))?;
    stage.finish()
}

/// A server alone knows the number of a message when it is thought lost. Much later it takes the place
/// of the one other server that has the message: that number is nobody's then.
pub(crate) fn a_newcomer_was_a_server_before() -> Result<(), Broken> {
    let mut stage = Stage::new(3, 2, 2);
    let id = |stage: &Stage, node: usize| stage.nodes[node].id.clone();
    stage.lead(2);
    stage.run(200, all)?;
    stage.publish(2, 1, 1);
    stage.run(30, |_, to, message| match message {
        Message::Sent(_) if to != 0 => Lost,
        Message::Commit(CommitMessage::Submit { .. }) => Lost,
        _ => Goes,
    })?;
    stage.crash(2);
    let mut group = Arc::clone(&stage.nodes[0].group);
    for (out, comes, leads) in [(2, SPARE, 0), (0, 2, 1)] {
        let (place, node) = (id(&stage, out), id(&stage, comes));
        let coming = Arc::new(group.replacing(&place, node.clone()).expect("it can be so"));
        (0..=SPARE).filter(|node| *node != out).for_each(|node| stage.regroup(node, &coming));
        if comes == 2 {
            stage.start(2);
        }
        stage.lead(leads);
        stage.run(1_500, all)?;
        if !stage.is_in(comes) {
            return broken(format!("{} is not in", node.name));
        }
        group = Arc::new(coming.joined(&node).expect("it is on its way"));
        (0..=SPARE).filter(|node| *node != out).for_each(|node| stage.regroup(node, &group));
        if comes == SPARE {
            stage.crash(0);
            stage.nodes[0].lost = true;
        }
    }
    // Nor does it come back with what it was.
    stage.crash(2);
    stage.start(2);
    stage.lead(SPARE);
    stage.run(500, |from, _, message| match message {
        Message::Receiver(ReceiverMessage::Data(_) | ReceiverMessage::Entries(_)) if from == 2 => {
            Lost
        }
        Message::Sequencer(SequencerMessage::Sealed { .. }) if from == 1 => Lost,
        _ => Goes,
    })?;
    stage.crash(2);
    stage.nodes[2].lost = true;
    stage.finish()
}
