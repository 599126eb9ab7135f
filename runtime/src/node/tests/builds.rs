//! Two builds of one program: messages under one wire name that differ.

use super::*;

/// A build's message `ledger.append` with these fields, and an actor that counts it.
macro_rules! build {
    ($name:ident { $($field:tt)* } -> $reply:literal $count:ident) => {
        mod $name {
            use super::*;

            #[derive(Debug, Default, Message, Serialize, Deserialize, RemoteMessage)]
            #[rtype(result = $reply)]
            #[remote(name = "ledger.append", crate = "crate")]
            pub(super) struct Append { $($field)* }

            #[derive(Default, RemoteActor)]
            #[remote(name = "ledger", handles(Append, Pay), crate = "crate")]
            pub(super) struct Ledger {
                pub(super) appended: $count,
            }

            impl Actor for Ledger {
                type Context = Context<Self>;
            }

            impl Handler<Append> for Ledger {
                type Result = <Append as Message>::Result;

                fn handle(&mut self, _: Append, _: &mut Self::Context) -> Self::Result {
                    self.appended += 1;
                    self.appended
                }
            }

            impl Handler<Pay> for Ledger {
                type Result = Result<u64, Refused>;

                fn handle(&mut self, _: Pay, _: &mut Self::Context) -> Self::Result {
                    Ok(u64::from(self.appended))
                }
            }
        }
    };
}

build!(old { pub(super) amount: i64 } -> "u64" u64);
build!(noted { pub(super) amount: i64, #[serde(default)] note: u8, by: Option<String> } -> "u64" u64);
build!(retyped { pub(super) amount: String } -> "u64" u64);
build!(needy { pub(super) amount: i64, currency: String } -> "u64" u64);
build!(other_reply { pub(super) amount: i64 } -> "u32" u32);

/// A node `name` with an actor of one build, and another build's address of that of `other`.
macro_rules! start {
    ($network:expr, $name:literal, $incarnation:literal, $build:ident) => {{
        let config = config($name, $incarnation).hosts::<$build::Ledger>();
        let node = Node::start($network.world(), config).unwrap();
        let addr = node.spawn("ledger", $build::Ledger::default);
        node.register("ledger", addr).unwrap();
        node
    }};
}

async fn link(a: &Node, b: &Node) {
    connect(a, b);
    until("both are up", || !a.peers_up().is_empty() && !b.peers_up().is_empty()).await;
}

#[test]
fn builds_that_differ_by_an_added_field_talk_in_both_directions() {
    simulated(async {
        let network = MemoryNetwork::default();
        let (a, b) = (start!(network, "a", 1, old), start!(network, "b", 2, noted));
        link(&a, &b).await;
        let there: RemoteAddr<old::Ledger> = a.address(b.id().clone(), "ledger");
        let back: RemoteAddr<noted::Ledger> = b.address(a.id().clone(), "ledger");
        assert_eq!(there.send(old::Append { amount: 1 }).await, Ok(1));
        assert_eq!(back.send(noted::Append::default()).await, Ok(1));
        assert_eq!((a.incompatible(), b.incompatible()), (vec![], vec![]));
    });
}

#[test]
fn a_changed_type_is_refused_by_name_before_anything_is_sent_and_the_link_stays() {
    simulated(async {
        let network = MemoryNetwork::default();
        let (a, b) = (start!(network, "a", 1, old), start!(network, "b", 2, retyped));
        link(&a, &b).await;
        // Known with the handshake, before anything was sent.
        let [found] = &a.incompatible()[..] else { panic!("{:?}", a.incompatible()) };
        assert_eq!((found.peer.as_str(), &*found.message), ("b", "ledger.append"));
        assert!(found.send && found.take, "{found:?}");
        assert_eq!(found.why, "`amount` is i64 here and something else there");
        assert!(b.incompatible()[0].why.contains("String here"));

        let there: RemoteAddr<old::Ledger> = a.address(b.id().clone(), "ledger");
        let refusal = SendError::Incompatible { name: "ledger.append".into() };
        assert_eq!(there.send(old::Append { amount: 1 }).await, Err(refusal.clone()));
        let given_back = there.try_send(old::Append { amount: 1 }).unwrap_err();
        assert_eq!(given_back.error, refusal);
        there.do_send(old::Append { amount: 1 });
        assert_eq!(dead_letters(&a, "incompatible"), 1);

        // A peer that sends it all the same is refused by the other side, not misread.
        let message = name_hash("ledger.append");
        let body = crate::message::encode(&old::Append { amount: 1 }).unwrap();
        let target = name_hash("ledger");
        let asked = a.ask(b.name(), target, message, Lane::User, body, ASK_TIMEOUT).await;
        assert_eq!(asked, Err(refusal));

        assert_eq!(there.send(Pay(1)).await, Ok(Ok(0)), "nothing ran, all else goes on");
    });
}

#[test]
fn a_field_that_only_one_side_needs_is_refused_in_that_direction_only() {
    simulated(async {
        let network = MemoryNetwork::default();
        let (a, b) = (start!(network, "a", 1, old), start!(network, "b", 2, needy));
        link(&a, &b).await;
        let there: RemoteAddr<old::Ledger> = a.address(b.id().clone(), "ledger");
        let back: RemoteAddr<needy::Ledger> = b.address(a.id().clone(), "ledger");
        let refusal = SendError::Incompatible { name: "ledger.append".into() };
        assert_eq!(there.send(old::Append { amount: 1 }).await, Err(refusal));
        assert_eq!(back.send(needy::Append::default()).await, Ok(1));
        let why = "`currency` is needed here and not sent there";
        assert_eq!(b.incompatible()[0].why, why);
    });
}

#[test]
fn another_result_is_refused_too() {
    simulated(async {
        let network = MemoryNetwork::default();
        let (a, b) = (start!(network, "a", 1, old), start!(network, "b", 2, other_reply));
        link(&a, &b).await;
        let there: RemoteAddr<old::Ledger> = a.address(b.id().clone(), "ledger");
        let refusal = SendError::Incompatible { name: "ledger.append".into() };
        assert_eq!(there.send(old::Append { amount: 1 }).await, Err(refusal));
    });
}

#[test]
fn what_is_registered_after_the_handshake_is_compared_before_it_can_be_looked_up() {
    simulated(async {
        let network = MemoryNetwork::default();
        let (a, b) = (join(&network, "a", 1), join(&network, "b", 2));
        link(&a, &b).await;
        let addr = b.spawn("ledger", retyped::Ledger::default);
        b.register("ledger", addr).unwrap();
        until("the name is known", || a.lookup::<old::Ledger>("ledger").is_ok()).await;
        let there: RemoteAddr<old::Ledger> = a.lookup("ledger").unwrap();
        let refusal = SendError::Incompatible { name: "ledger.append".into() };
        assert_eq!(there.send(old::Append { amount: 1 }).await, Err(refusal));

        // A new build comes up under the same name: what was refused is forgotten with the link.
        network.cut();
        until("the link is lost", || a.incompatible().is_empty()).await;
        until("and comes back", || !a.incompatible().is_empty()).await;
    });
}

#[test]
fn two_types_of_one_wire_name_are_refused_at_the_start_naming_both() {
    simulated(async {
        let network = MemoryNetwork::default();
        let config = config("a", 1).hosts::<old::Ledger>().sends::<noted::Append>();
        let error = Node::start(network.world(), config).unwrap_err().to_string();
        assert!(error.contains("old::Append") && error.contains("noted::Append"), "{error}");

        // Somebody who only ever sends is stopped as well, at the first use.
        let (a, b) = (join(&network, "a", 1), start!(network, "b", 2, old));
        link(&a, &b).await;
        let good: RemoteAddr<old::Ledger> = a.address(b.id().clone(), "ledger");
        let doubled: RemoteAddr<noted::Ledger> = a.address(b.id().clone(), "ledger");
        let refusal = SendError::Incompatible { name: "ledger.append".into() };
        assert_eq!(doubled.send(noted::Append::default()).await, Err(refusal));
        assert_eq!(good.send(old::Append { amount: 1 }).await, Ok(1));
    });
}

#[test]
fn more_messages_than_a_hello_holds_are_refused() {
    simulated(async {
        let forms = crate::node::forms::Forms::default();
        let mut long = crate::message::KnownMessage::of::<Pay>();
        long.name = LONG;
        assert_eq!(forms.know(&[long]), Err(RegisterError::TooManyMessages));
        assert_eq!(forms.fingerprints(), []);
    });
}

const LONG: &str = match std::str::from_utf8(&[b'x'; crate::wire::MESSAGES_BYTES_MAX]) {
    Ok(text) => text,
    Err(_) => "",
};
