//! Scenes that a walk hardly comes to by chance: each plays well, and badly without its rule.

use synod::multicast::{
    message::{CommitMessage, DataMessage, Message, Publisher, SequencerMessage},
    rules::Rule,
    sequencer::Submits,
};

use crate::{
    judge::Broken,
    replaced::{
        a_newcomer_is_all_that_remembers, a_newcomer_knows_nothing_yet,
        a_newcomer_was_a_server_before, a_replaced_server_leads,
    },
    stage::{
        Stage,
        Way::{self, Goes, Late, Lost},
    },
};

type Scene = fn() -> Result<(), Broken>;

/// Of each rule that has one.
pub(crate) const SCENES: [(Rule, Scene); 13] = [
    (Rule::SealDurable, a_seal_is_forgotten),
    (Rule::HighestEpochCounts, a_number_has_two_records),
    (Rule::CarriedDurable, a_word_is_carried_that_is_not_on_a_disk),
    (Rule::ReportedDurable, reported_messages_are_forgotten),
    (Rule::ReportersDistinct, one_server_reports_twice),
    (Rule::PublisherOrder, a_message_overtakes_the_one_before),
    (Rule::OnlyCommittedNamed, an_old_server_is_asked),
    (Rule::CopiesAreNotCommitted, a_message_is_open_in_two_places),
    (Rule::OpenNumbersScanned, a_message_is_open_in_two_places),
    (Rule::NewcomerCountsLate, a_newcomer_knows_nothing_yet),
    (Rule::OlderServersRefused, a_replaced_server_leads),
    (Rule::NewcomerAdopts, a_newcomer_is_all_that_remembers),
    (Rule::NewcomerForgets, a_newcomer_was_a_server_before),
];

fn all(_: usize, _: usize, _: &Message) -> Way {
    Goes
}

fn if_so(goes: bool) -> Way {
    if goes { Goes } else { Lost }
}

const fn is_submit(message: &Message) -> bool {
    matches!(message, Message::Commit(CommitMessage::Submit { .. }))
}

/// A server seals, crashes before that is on its disk, and then hears the old sequencer.
fn a_seal_is_forgotten() -> Result<(), Broken> {
    let mut stage = Stage::new(3, 1, 2);
    stage.lead(0);
    stage.run(200, all)?;
    stage.publish(0, 1, 1);
    stage.run(20, |from, to, message| match from {
        0 if to == 1 && is_submit(message) => Late,
        0 => Lost,
        _ => Goes,
    })?;
    stage.nodes[1].stuck = true;
    stage.lead(2);
    let without_0 = |from, to, _: &Message| if_so(from != 0 && to != 0);
    stage.run(20, without_0)?;
    stage.crash(1);
    stage.start(1);
    stage.release();
    stage.run(20, |from, to, _| if_so(from == 1 && to == 0))?;
    stage.publish(2, 2, 1);
    stage.run(400, without_0)?;
    stage.finish()
}

/// A server has a number under one sequencer alone, and the others under the next one, who is gone
/// before they hear that it is committed.
fn a_number_has_two_records() -> Result<(), Broken> {
    let mut stage = Stage::new(3, 2, 2);
    stage.lead(0);
    stage.run(200, all)?;
    stage.publish(0, 1, 1);
    stage.run(30, |_, to, message| match message {
        Message::Sent(_) => if_so(to == 1),
        _ => if_so(!is_submit(message)),
    })?;
    let without = |node| move |from, to, _: &Message| if_so(from != node && to != node);
    stage.lead(2);
    stage.run(200, without(0))?;
    stage.publish(2, 2, 1);
    stage.run(60, |from, to, message| match message {
        Message::Committed(_) | Message::Gossip(_) => Lost,
        _ => without(0)(from, to, message),
    })?;
    stage.lead(0);
    stage.run(300, without(2))?;
    stage.finish()
}

/// The sequencer's own disk hangs. Another server has its number and what the sequencer says of itself, and
/// is cut off; the sequencer's node starts again.
fn a_word_is_carried_that_is_not_on_a_disk() -> Result<(), Broken> {
    let mut stage = Stage::submitting(Submits::OwnFirst, 3, 1, 2);
    stage.lead(0);
    stage.run(200, all)?;
    stage.nodes[0].stuck = true;
    stage.publish(3, 1, 1);
    stage.run(40, |_, to, message| match message {
        Message::Sent(_) => if_so(to == 1),
        _ => if_so(to == 1 || !is_submit(message)),
    })?;
    // So the publisher does not send it again.
    [0, 3].into_iter().for_each(|node| stage.crash(node));
    stage.start(0);
    stage.lead(2);
    let without_1 = |from, to, _: &Message| if_so(from != 1 && to != 1);
    stage.run(200, without_1)?;
    stage.publish(2, 2, 1);
    stage.run(200, without_1)?;
    stage.finish()
}

/// All servers that have a message, and its publisher, lose power before it is on a disk.
fn reported_messages_are_forgotten() -> Result<(), Broken> {
    let mut stage = Stage::new(5, 2, 2);
    stage.lead(2);
    stage.run(200, all)?;
    (stage.nodes[0].stuck, stage.nodes[1].stuck) = (true, true);
    stage.publish(5, 1, 1);
    stage.run(150, |_, to, message| match message {
        Message::Sent(_) => if_so(to < 2),
        Message::Data(DataMessage::Query(_)) => Lost,
        _ => Goes,
    })?;
    [0, 1, 5].into_iter().for_each(|node| stage.crash(node));
    stage.finish()
}

/// Only one server has a message, says so again and again, and is lost for good.
fn one_server_reports_twice() -> Result<(), Broken> {
    let mut stage = Stage::new(5, 2, 2);
    stage.lead(2);
    stage.run(200, all)?;
    stage.publish(5, 1, 1);
    stage.run(500, |_, to, message| match message {
        Message::Sent(_) => if_so(to == 0),
        Message::Data(DataMessage::Query(_)) => Lost,
        _ => Goes,
    })?;
    stage.nodes[0].lost = true;
    [0, 5].into_iter().for_each(|node| stage.crash(node));
    stage.finish()
}

/// The second message of a publisher comes before the first.
fn a_message_overtakes_the_one_before() -> Result<(), Broken> {
    let mut stage = Stage::new(3, 2, 2);
    stage.lead(0);
    stage.run(200, all)?;
    stage.publish(3, 1, 1);
    stage.run(10, |_, _, message| if_so(!matches!(message, Message::Sent(_))))?;
    stage.publish(3, 1, 2);
    stage.run(100, all)?;
    stage.finish()
}

/// A server that missed a change of sequencers is asked what has a number.
fn an_old_server_is_asked() -> Result<(), Broken> {
    let mut stage = Stage::new(3, 1, 2);
    stage.lead(0);
    stage.run(200, all)?;
    // Only the server of the first sequencer's own node has its pair.
    stage.publish(0, 1, 1);
    stage.run(20, |from, _, _| if_so(from != 0))?;
    stage.lead(2);
    stage.publish(2, 2, 1);
    let outside_is_deaf =
        |from, to, _: &Message| if_so(from != 0 && to != 0 && from != 3 && to != 3);
    stage.run(200, outside_is_deaf)?;
    // It hears how far they are, and only the old one answers it.
    stage.run(2_000, |from, to, message| match (from, to) {
        (3, 0) | (0, 3) => Goes,
        (3, _) => Lost,
        (_, 3) => if_so(matches!(message, Message::Gossip(_))),
        _ => if_so(from != 0 && to != 0),
    })?;
    stage.finish()
}

/// Under one sequencer a message is open at the second number, in more than one server, and under
/// the next at the first.
fn a_message_is_open_in_two_places() -> Result<(), Broken> {
    let mut stage = Stage::new(5, 2, 3);
    stage.lead(0);
    stage.run(200, all)?;
    // The first: 1 is another message, known to its own server alone; 2 is known to two.
    let sent = |to: usize, message: &Message| match message {
        Message::Sent(data) if data[0].mid.publisher == Publisher(1) => to < 2,
        Message::Sent(_) => to < 4,
        _ => true,
    };
    stage.publish(5, 1, 1);
    stage.run(20, |_, to, message| if_so(!is_submit(message) && sent(to, message)))?;
    stage.publish(5, 2, 1);
    stage.run(20, |_, to, message| match message {
        Message::Commit(CommitMessage::Submit { pairs, .. }) => {
            if_so(to == 1 && pairs.len() == 1 && pairs[0].0.0 == 2)
        }
        _ => if_so(sent(to, message)),
    })?;
    // The second begins with servers that know of neither, and is alone with what it assigns.
    stage.lead(2);
    stage.run(150, |from, to, message| {
        let among = (2..5).contains(&from) && (2..5).contains(&to);
        if_so(among && !is_submit(message))
    })?;
    // The third finds all of it.
    stage.lead(0);
    stage.run(150, |from, to, message| match message {
        Message::Sequencer(SequencerMessage::Reported(_)) => Lost,
        _ => if_so(from < 3 && to < 3),
    })?;
    stage.finish()
}
