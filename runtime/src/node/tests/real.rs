//! Real time, real threads, real sockets.

use super::*;
use crate::{
    quic::{Authority, QuicNetwork},
    world::{RealClock, RealEntropy},
};

#[test]
fn two_nodes_over_quic_tell_ask_and_share_names() {
    let system = actix::System::new();
    system.block_on(async {
        let authority = Authority::new(&"test".parse().unwrap()).unwrap();
        let start = |name: &str| {
            let mut config = config(name, 1);
            let names = (["localhost".to_owned()], [std::net::IpAddr::from([127, 0, 0, 1])]);
            config.tls = Some(authority.issue(&config.name, &names.0, &names.1).unwrap());
            let world = World {
                clock: Arc::new(RealClock),
                entropy: Arc::new(RealEntropy),
                network: Arc::new(QuicNetwork),
                disk: Arc::new(memory::NoDisk),
            };
            Node::start(world, config).unwrap()
        };
        let (a, b) = (start("a"), start("b"));
        let addr = b.spawn("till", Till::default);
        b.register("till", addr).unwrap();
        connect(&a, &b);
        until("the name is known", || a.lookup::<Till>("till").is_ok()).await;
        let till: RemoteAddr<Till> = a.lookup("till").unwrap();
        for _ in 0..1000 {
            till.do_send(Pay(1));
        }
        assert_eq!(till.send(Pay(1)).await, Ok(Ok(1001)));
        let short = Duration::from_millis(50);
        assert_eq!(till.send(Dawdle).timeout(short).await, Err(SendError::Timeout));
        b.shutdown();
        until("names go with the node", || a.lookup::<Till>("till").is_err()).await;
        a.shutdown();
    });
}

#[test]
fn an_actor_on_another_arbiter_is_supervised_alike() {
    let system = actix::System::new();
    system.block_on(async {
        let network = MemoryNetwork::default();
        let (a, b) = (join(&network, "a", 1), join(&network, "b", 2));
        let arbiter = actix::Arbiter::new();
        let policy = Policy::default();
        let addr = b.spawn_on(&arbiter.handle(), "till", policy, Till::default).unwrap();
        b.register("till", addr.clone()).unwrap();
        connect(&a, &b);
        until("the name is known", || a.lookup::<Till>("till").is_ok()).await;
        let till: RemoteAddr<Till> = a.lookup("till").unwrap();
        assert_eq!(till.send(Pay(2)).await, Ok(Ok(2)));
        assert_eq!(till.send(Explode).await, Err(SendError::Closed));
        assert_eq!(till.send(Pay(1)).await, Ok(Ok(1)), "rebuilt on its arbiter");
        b.abort_all();
        until("it is gone", || !addr.connected()).await;
        arbiter.stop();
    });
}
