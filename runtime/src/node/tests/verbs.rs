//! The verbs beyond tell and ask: giving back, passing addresses on, trying again.

use actix::Recipient;

use super::*;
use crate::{
    address::RemoteRecipient,
    message::{decode, decode_on, encode},
    node::credit::TARGET_WINDOW,
};

/// Passes addresses on.
#[derive(RemoteActor)]
#[remote(name = "clerk", handles(Introduce), crate = "crate")]
struct Clerk;

impl Actor for Clerk {
    type Context = Context<Self>;
}

/// Answered with the first address, after something was paid to both.
#[derive(Message, Serialize, Deserialize, RemoteMessage)]
#[rtype(result = "RemoteAddr<Till>")]
#[remote(name = "clerk.introduce", crate = "crate")]
struct Introduce {
    till: RemoteAddr<Till>,
    anybody: RemoteRecipient<Pay>,
}

impl Handler<Introduce> for Clerk {
    type Result = actix::MessageResult<Introduce>;

    fn handle(&mut self, met: Introduce, _: &mut Self::Context) -> Self::Result {
        met.till.do_send(Pay(1));
        met.anybody.do_send(Pay(10));
        actix::MessageResult(met.till)
    }
}

#[test]
fn a_message_that_is_not_sent_is_given_back_with_the_reason() {
    simulated(async {
        let Pair { a, b, till, .. } = pair().await;
        assert_eq!(till.try_send(Pay(5)), Ok(()));
        let former: RemoteAddr<Till> =
            a.address(NodeId::new(b.name().clone(), Incarnation(9)), "till");
        let refused = former.try_send(Pay(7)).unwrap_err();
        assert_eq!((refused.error, refused.message), (SendError::Unreachable, Pay(7)));
        let refused = former.recipient::<Pay>().try_send(Pay(8)).unwrap_err();
        assert_eq!((refused.message, refused.error.outcome()), (Pay(8), Delivery::NotRun));

        // A full mailbox here: nobody handles anything before the next await.
        let near: RemoteAddr<Till> = b.lookup("till").unwrap();
        let refused = (0..1000).find_map(|n| near.try_send(Pay(n)).err()).unwrap();
        assert_eq!(refused.error, SendError::Overloaded);
        assert!(refused.message.0 > 0, "some had room");
    });
}

#[test]
fn a_tell_waits_for_room_and_keeps_its_order() {
    simulated(async {
        let Pair { a, b, till, .. } = pair().await;
        // More than an actor grants credit for, so most of them wait.
        let total = 3 * TARGET_WINDOW;
        for recipient in [None, Some(till.recipient::<Pay>())] {
            for _ in 0..total {
                match &recipient {
                    None => till.tell(Pay(1)).await.unwrap(),
                    Some(recipient) => recipient.tell(Pay(1)).await.unwrap(),
                }
            }
        }
        assert_eq!(till.send(Pay(0)).await, Ok(Ok(2 * total)), "the ask comes behind all of them");

        // A full mailbox here is waited for, too.
        let near: RemoteAddr<Till> = b.lookup("till").unwrap();
        for _ in 0..1000 {
            near.tell(Pay(1)).await.unwrap();
        }
        assert_eq!(near.send(Pay(0)).await, Ok(Ok(2 * total + 1000)));

        let former: RemoteAddr<Till> =
            a.address(NodeId::new(b.name().clone(), Incarnation(9)), "till");
        assert_eq!(former.tell(Pay(7)).await, Err(SendError::Unreachable));
    });
}

#[test]
fn a_recipient_is_told_and_asked_alike_from_near_and_far() {
    simulated(async {
        let Pair { a, b, till, .. } = pair().await;
        let far = till.recipient::<Pay>();
        let near: RemoteRecipient<Pay> = b.recipient(b.id().clone(), "till");
        assert_eq!((far.node(), far.name()), (Some(b.id()), Some("till")));
        assert_eq!(near, far, "the same recipient wherever it is used");
        for recipient in [&far, &near] {
            recipient.do_send(Pay(1));
            recipient.try_send(Pay(1)).unwrap();
        }
        assert_eq!(far.send(Pay(1)).await, Ok(Ok(5)));
        assert_eq!(near.send(Pay(1)).await, Ok(Ok(6)));

        let unnamed: RemoteRecipient<Pay> = a.spawn("own", Till::default).recipient().into();
        assert_eq!(unnamed.send(Pay(3)).await, Ok(Ok(3)));
        assert!(encode(&unnamed).unwrap_err().to_string().contains("register it"));
        a.stop("own");
        until("it has ended", || a.local::<Till>("own").is_none()).await;
        assert_eq!(unnamed.send(Pay(3)).await, Err(SendError::NoSuchActor));
    });
}

#[test]
fn an_address_in_a_message_or_answer_is_bound_to_the_node_that_reads_it() {
    simulated(async {
        let Pair { network, a, b, till, .. } = pair().await;
        let own = a.register("own", a.spawn("own", Till::default)).unwrap();
        b.register("clerk", b.spawn("clerk", || Clerk)).unwrap();
        let clerk: RemoteAddr<Clerk> = a.address(b.id().clone(), "clerk");
        // The clerk is told of one actor of its own node and of one of the asker's.
        let met = Introduce { till: till.clone(), anybody: own.recipient() };
        let back = clerk.send(met).await.unwrap();
        assert_eq!(back.send(Pay(1)).await, Ok(Ok(2)), "bound to the asker");
        assert_eq!(own.send(Pay(0)).await, Ok(Ok(10)), "bound to the clerk");

        // One that has come home needs no link.
        let home: RemoteRecipient<Pay> = decode_on(&b, &encode(&till).unwrap()).unwrap();
        network.cut();
        assert_eq!(home.send(Pay(0)).await, Ok(Ok(2)));
        let adrift: RemoteRecipient<Pay> = decode(&encode(&till).unwrap()).unwrap();
        assert_eq!(adrift.send(Pay(1)).await, Err(SendError::Unreachable), "read by nobody");
        assert_eq!(adrift.bind(&b).send(Pay(1)).await, Ok(Ok(3)));
    });
}

#[test]
fn code_that_knows_only_actix_reaches_far_actors_by_one_proxy_each() {
    simulated(async {
        let Pair { a, b, till, dawdled, .. } = pair().await;
        let proxy: Recipient<Pay> = till.recipient().into_actix();
        let again: Recipient<Pay> = a.recipient(b.id().clone(), "till").into_actix();
        let other: Recipient<Dawdle> = till.recipient().into_actix();
        assert_eq!(lock(&a.0.proxies).len(), 2, "one for each target and message");
        proxy.do_send(Pay(1));
        again.try_send(Pay(2)).unwrap();
        assert_eq!(proxy.send(Pay(3)).await.unwrap(), Ok(6));

        let waiting = tokio::time::timeout(Duration::from_millis(10), other.send(Dawdle)).await;
        assert!(waiting.is_err() && dawdled.load(SeqCst) == 1);
        until("the far work is cancelled", || b.0.asks.open() == (0, 0)).await;

        let near: Recipient<Pay> = b.recipient(b.id().clone(), "till").into_actix();
        assert_eq!(near.send(Pay(1)).await.unwrap(), Ok(7), "without any proxy");
        assert!(lock(&b.0.proxies).is_empty());
        b.unregister("till");
        assert_eq!(proxy.send(Pay(1)).await, Err(actix::MailboxError::Closed));
        drop((proxy, again, other));
        until("proxies end with their users", || lock(&a.0.proxies).is_empty()).await;
    });
}

#[test]
fn an_idempotent_ask_is_sent_again_until_it_is_answered() {
    simulated(async {
        let Pair { network, a, b, till, dawdled } = pair().await;
        let cut = async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            network.cut();
        };
        let asked = till.send(Dawdle).idempotent();
        let (answer, ()) = futures_util::future::join(asked, cut).await;
        assert_eq!((answer, dawdled.load(SeqCst)), (Ok(()), 2), "once for each link");

        b.unregister("till");
        let register = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            b.register("till", b.local::<Till>("till").unwrap()).unwrap();
        };
        let asked = till.send(Pay(1)).idempotent();
        let (answer, _) = futures_util::future::join(asked, register).await;
        assert_eq!(answer, Ok(Ok(1)));

        let before = a.now();
        let refused = till.send(Pay(-1)).idempotent().await.unwrap();
        assert!(refused.is_err() && a.now().since(before) < SOON, "an answer is an answer");
    });
}

#[test]
fn an_idempotent_ask_that_fails_tells_of_all_its_attempts() {
    simulated(async {
        let Pair { network, a, b, till, dawdled } = pair().await;
        let short = Duration::from_millis(500);
        let stop = async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            network.cut();
            b.shutdown();
        };
        let before = a.now();
        let asked = till.send(Dawdle).idempotent().timeout(short);
        let (answer, ()) = futures_util::future::join(asked, stop).await;
        // The last attempt did not run, the first one did.
        assert_eq!((answer, dawdled.load(SeqCst)), (Err(SendError::Timeout), 1));
        assert!(a.now().since(before) <= short + SOON);
        let unsent = till.send(Dawdle).idempotent().timeout(short).await;
        assert_eq!((unsent, dawdled.load(SeqCst)), (Err(SendError::Unreachable), 1));
    });
}

#[test]
fn dead_letters_are_counted_by_reason_and_shown_to_who_listens() {
    simulated(async {
        let Pair { a, b, till, .. } = pair().await;
        let (mut here, mut there) = (a.dead_letters(), b.dead_letters());
        let nobody: RemoteAddr<Till> = a.address(b.id().clone(), "nobody");
        nobody.do_send(Pay(1));
        let letter = there.next().await.unwrap();
        assert_eq!((letter.reason, letter.message.as_str()), ("no_such_actor", "till.pay"));
        assert_eq!((&letter.from, &letter.to), (a.id(), b.name()));
        assert_eq!(letter.target, format!("#{:016x}", name_hash("nobody")));
        b.shutdown();
        until("the link is down", || a.peers_up().is_empty()).await;
        for _ in 0..2000 {
            till.do_send(Pay(1));
        }
        assert_eq!(dead_letters(&a, "unreachable"), 2000);
        let letter = here.next().await.unwrap();
        assert_eq!((letter.reason, letter.target.as_str()), ("unreachable", "till"));
        assert!(here.missed() > 0, "a slow listener holds nothing up");
    });
}

/// On a paused clock: no waiting worth the name.
const SOON: Duration = Duration::from_millis(10);
