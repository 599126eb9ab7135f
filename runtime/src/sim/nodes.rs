//! Whole nodes of a simulated world, for tests of what runs on them.

use super::{PORT_DEFAULT, Simulation, lock};
use crate::{
    identity::{Incarnation, NodeName},
    node::{Node, NodeConfig},
};

impl Simulation {
    /// Starts a node called `name`, linked to all machines of this world that were made before. A
    /// machine that was restarted comes as another incarnation. To be called inside of
    /// [`Simulation::run`].
    ///
    /// ```
    /// use synod_runtime::sim::Simulation;
    ///
    /// Simulation::new(1).run(|sim| async move {
    ///     let (a, b) = (sim.start_node("a"), sim.start_node("b"));
    ///     tokio::time::sleep(std::time::Duration::from_secs(1)).await; // takes no time
    ///     assert_eq!(a.peers_up()[0].id, *b.id());
    /// });
    /// ```
    ///
    /// # Panics
    /// When `name` is no name of a node, or such a node runs.
    pub fn start_node(&self, name: &str) -> Node {
        let name: NodeName = name.parse().unwrap_or_else(|error| panic!("{name}: {error}"));
        let known: Vec<NodeName> = lock(&self.hub.nodes).keys().cloned().collect();
        let others = known.into_iter().filter(|other| *other != name);
        let peers = others.map(|other| (other.clone(), self.address(&other))).collect();
        let world = self.world(&name);
        let life = self.node(&name).machine.life().number();
        let cluster = "simulated".parse().expect("a name");
        let config = NodeConfig {
            listen: ([0, 0, 0, 0], PORT_DEFAULT).into(),
            peers,
            ..NodeConfig::new(cluster, name.clone(), Incarnation(life))
        };
        Node::start(world, config).unwrap_or_else(|error| panic!("{name} does not start: {error}"))
    }
}
