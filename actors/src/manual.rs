//! The manual.

#[doc = include_str!("../docs/getting-started.md")]
pub mod getting_started {}

#[doc = include_str!("../docs/messages.md")]
pub mod messages {}

#[doc = include_str!("../docs/supervision.md")]
pub mod supervision {}

#[doc = include_str!("../docs/guarantees.md")]
pub mod guarantees {}

#[doc = include_str!("../docs/testing.md")]
pub mod testing {}

#[doc = include_str!("../docs/operations.md")]
pub mod operations {}

#[doc = include_str!("../docs/roles.md")]
pub mod roles {}

#[doc = include_str!("../docs/views.md")]
pub mod views {}

#[doc = include_str!("../docs/registers.md")]
pub mod registers {}

#[doc = include_str!("../docs/singletons.md")]
pub mod singletons {}

#[doc = include_str!("../docs/services.md")]
pub mod services {}

#[doc = include_str!("../docs/redis.md")]
pub mod redis {}

#[doc = include_str!("../docs/multicast.md")]
pub mod multicast {}

#[doc = include_str!("../docs/speed.md")]
pub mod speed {}

#[doc = include_str!("../docs/elect.md")]
pub mod elect {}

#[doc = include_str!("../docs/snapshots.md")]
pub mod snapshots {}

#[doc = include_str!("../docs/kv.md")]
pub mod kv {}

#[doc = include_str!("../docs/web.md")]
pub mod web {}

#[doc = include_str!("../docs/web-clients.md")]
pub mod web_clients {}

#[doc = include_str!("../docs/web-redis.md")]
pub mod web_redis {}

#[doc = include_str!("../docs/async-handlers.md")]
pub mod async_handlers {}

#[doc = include_str!("../docs/security.md")]
pub mod security {}

#[doc = include_str!("../docs/compatibility.md")]
pub mod compatibility {}

#[doc = include_str!("../docs/design.md")]
pub mod design {}

#[doc = include_str!("../docs/composing.md")]
pub mod composing {}

#[doc = include_str!("../docs/promises.md")]
pub mod promises {}
