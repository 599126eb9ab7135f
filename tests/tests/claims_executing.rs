//! The claims of the source about executing: the value is a function, whoever learns of its choice
//! executes it, and says so to whoever asked. Method: the real home of a client at A, which leads,
//! and the real replicas of A and B, with the test as the log between them.

use rand::SeedableRng;
use synod::{
    consensus::{
        Timing,
        ballot::Step,
        home::Home,
        message::{
            CommandReply, End, Execute, HomeMessage, Leader, Message, NewCommand, ProposerMessage,
            ReplicaMessage, Replies, Submit,
        },
        record::Record,
        replica::Replica,
        value::{EncodedCommand, Value},
    },
    effects::{Effects, Letter, To},
    replicated::{ApplyError, Function, Moment, RestoreError, StateMachine, Turn, name_hash},
};
use synod_runtime::world::Rng;
use synod_tests::hand::{A, B, ballot, dawn, genesis, node, start, tell};

/// Adds a number to what was added before; answers the sum.
const ADD: Function = Function::command("sum.add");

/// A replicated sum.
#[derive(Debug, Default)]
struct Sum(u64);

impl StateMachine for Sum {
    fn name(&self) -> &'static str {
        "sum"
    }

    fn functions(&self) -> &[Function] {
        &[ADD]
    }

    fn apply(&mut self, id: u64, args: &[u8], _turn: &mut Turn) -> Result<Vec<u8>, ApplyError> {
        if id != ADD.id {
            return Err(ApplyError::UnknownFunction { id });
        }
        let wrong = |_size| ApplyError::BadArguments("not a number".to_owned());
        self.0 += u64::from_le_bytes(args.try_into().map_err(wrong)?);
        Ok(self.0.to_le_bytes().to_vec())
    }

    fn query(&self, id: u64, _args: &[u8], _at: &Moment) -> Result<Vec<u8>, ApplyError> {
        Err(ApplyError::UnknownFunction { id })
    }

    fn snapshot(&self) -> Vec<u8> {
        self.0.to_le_bytes().to_vec()
    }

    fn restore(&mut self, bytes: &[u8]) -> Result<(), RestoreError> {
        self.0 = bytes.try_into().map_or(0, u64::from_le_bytes);
        Ok(())
    }
}

/// A client's home at `at`, and both replicas. A leads.
struct Scene {
    at: u64,
    home: Home,
    replicas: [(u64, Replica); 2],
    steps: u64,
    calls: u64,
}

impl Scene {
    fn new(at: u64) -> Self {
        let replica = |number| {
            let make = || vec![Box::new(Sum::default()) as Box<dyn StateMachine>];
            let mut replica = Replica::new(node(number), Box::new(make), u64::MAX);
            start(&mut replica, vec![Record::Genesis(genesis())]);
            (number, replica)
        };
        let mut home = Home::new(node(at), Timing::default(), Rng::seed_from_u64(1));
        start(&mut home, vec![]);
        let mut scene = Self { at, home, replicas: [replica(A), replica(B)], steps: 0, calls: 0 };
        let leader =
            Leader { node: Some(node(A)), ballot: ballot(1, A), serving: true, halted: None };
        let registers = requested(&tell(&mut scene.home, dawn(), at, leader));
        for (from, letter) in scene.chosen(&registers) {
            if let Message::Home(registered @ HomeMessage::Registered(_)) = letter.message {
                tell(&mut scene.home, dawn(), from, registered);
            }
        }
        scene
    }

    /// A client asks to add a number: the command as its home sends it to the leader.
    fn add(&mut self, number: u64) -> Vec<EncodedCommand> {
        self.calls += 1;
        let command = NewCommand {
            ticket: self.calls,
            actor: name_hash("sum"),
            function: ADD.id,
            keyed: false,
            args: number.to_le_bytes().to_vec().into(),
            patience: std::time::Duration::from_secs(1),
        };
        requested(&tell(&mut self.home, dawn(), self.at, Submit { commands: vec![command] }))
    }

    /// The next step is chosen and holds those commands, A having led: what each replica says.
    fn chosen(&mut self, commands: &[EncodedCommand]) -> Vec<(u64, Letter<Message>)> {
        self.steps += 1;
        let (first, values) = (Step(self.steps), vec![Value::batch(1, 1, commands)]);
        let mut said = Vec::new();
        for (number, replica) in &mut self.replicas {
            let answer_others = *number != A; // as the learner says of steps this node did not lead
            let values = values.clone();
            let execute = ReplicaMessage::from(Execute { first, values, answer_others });
            let out = tell(replica, dawn(), *number, execute);
            said.extend(out.now.into_iter().map(|letter| (*number, letter)));
        }
        said
    }
}

fn requested(out: &Effects<Home>) -> Vec<EncodedCommand> {
    let requests = out.now.iter().filter_map(|letter| match &letter.message {
        Message::Proposer(ProposerMessage::Request(request)) => Some(request.commands.clone()),
        _ => None,
    });
    requests.flatten().collect()
}

/// Who sent which replies where.
fn replies(said: &[(u64, Letter<Message>)]) -> Vec<(u64, To, CommandReply)> {
    let mut found = Vec::new();
    for (from, letter) in said {
        if let Message::Home(HomeMessage::Replies(Replies { replies, .. })) = &letter.message {
            found.extend(replies.iter().map(|reply| (*from, letter.to.clone(), reply.clone())));
        }
    }
    found
}

fn sum(reply: &CommandReply) -> u64 {
    let bytes = reply.result.as_ref().expect("it could be executed");
    u64::from_le_bytes(bytes.as_ref().try_into().expect("a number"))
}

#[test]
fn r1_8_the_value_is_a_function_which_every_main_executes() {
    let mut scene = Scene::new(B);
    let (five, seven) = (scene.add(5), scene.add(7));
    scene.chosen(&five);
    let said = scene.chosen(&seven);
    let sums: Vec<u64> = replies(&said).iter().map(|(_, _, reply)| sum(reply)).collect();
    assert_eq!(sums, [12], "the second saw what the first did");
    let [(_, a), (_, b)] = &scene.replicas;
    assert_eq!(a.summary(), b.summary(), "the same at both");
    assert_eq!(a.summary().1, 3, "the registration and two commands");
}

#[test]
fn r1_10_with_the_result_comes_word_that_the_function_was_selected_and_where() {
    let mut scene = Scene::new(B);
    let asked = scene.add(5);
    let said = scene.chosen(&asked);
    let [(from, to, reply)] = &replies(&said)[..] else { panic!("one reply: {said:?}") };
    assert_eq!((*from, to), (B, &To::Here), "of the receiver, to its own client");
    let position = scene.replicas[1].1.summary().1;
    assert_eq!(reply.position, position, "its place in the order of all");
    let message = said.into_iter().find_map(|(from, letter)| match letter.message {
        Message::Home(replies @ HomeMessage::Replies(_)) if from == B => Some(replies),
        _ => None,
    });
    let out = tell(&mut scene.home, dawn(), B, message.expect("seen above"));
    let told = out.now.iter().find_map(|letter| match &letter.message {
        Message::Client(answer) => Some((answer.ticket, answer.end.clone())),
        _ => None,
    });
    let five = 5_u64.to_le_bytes().to_vec().into();
    assert_eq!(told, Some((1, End::Done(position, five))), "and the client is told both");
}

#[test]
fn r1_11_the_proposer_s_node_gets_the_receiver_s_result_and_can_compare_it() {
    let mut scene = Scene::new(A);
    let asked = scene.add(5);
    let said = replies(&scene.chosen(&asked));
    let [(_, own_to, own), (_, to, received)] = &said[..] else { panic!("two replies: {said:?}") };
    assert_eq!((own_to, to), (&To::Here, &To::Node(node(A))));
    assert_eq!(own, received, "both executed the same and came to the same");
}

#[test]
fn r1_46_the_receiver_answers_straight_to_the_address_in_the_request() {
    let member = 7;
    let mut scene = Scene::new(member);
    let asked = scene.add(5);
    let said = replies(&scene.chosen(&asked));
    let [(from, to, reply)] = &said[..] else { panic!("one reply, of one replica: {said:?}") };
    assert_eq!((*from, to), (B, &To::Node(node(member))), "not by way of the leader");
    assert_eq!(sum(reply), 5);
}
