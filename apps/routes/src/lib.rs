//! A forwarding table that many edge nodes keep equal.
//!
//! Prefixes are announced and withdrawn through the group `routes`; every node that is asked for a
//! route follows it. The same number means the same table, at every edge: what a packet is forwarded
//! by never depends on where it came in. A new edge takes a checkpoint and what followed it.
//!
//! ```
//! use synod_routes::Routes;
//!
//! let mut routes = Routes::default();
//! routes.announce("10.0.0.0/8".parse()?, "192.0.2.1".parse()?);
//! routes.announce("10.1.0.0/16".parse()?, "192.0.2.2".parse()?);
//! let (prefix, via) = routes.lookup("10.1.2.3".parse()?).expect("it is covered");
//! assert_eq!((prefix.to_string(), via.to_string()), ("10.1.0.0/16".into(), "192.0.2.2".into()));
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! ```

mod http;
mod prefix;
mod table;

use actix_web::web::ServiceConfig;
use synod::{
    multicast::application::Application,
    server::{Follower, NodeAddresses, multicast::Multicast},
};

pub use self::{
    prefix::{BadPrefix, Prefix},
    table::{Question, Routes},
};

/// Forwarding tables, one at each node that is asked for routes, and `/routes` to ask there.
#[derive(Debug, Clone, Copy, Default)]
pub struct RoutesFollower;

impl Follower for RoutesFollower {
    fn group(&self) -> &str {
        GROUP
    }

    fn application(&self) -> Box<dyn Application> {
        Box::new(Routes::default())
    }

    fn http(&self, routes: &mut ServiceConfig, multicast: &Multicast) {
        http::configure(routes, multicast.clone());
    }

    fn hints(&self, at: &NodeAddresses) -> Vec<String> {
        let announce = format!("curl -X PUT http://{}/routes/10.0.0.0/8 -d 192.0.2.1", at.http);
        vec![announce, format!("curl http://{}/routes/to/10.1.2.3", at.http)]
    }
}

const GROUP: &str = "routes";
