//! Messages with a name of their own on the wire.

use actix::Message;
use serde::{Serialize, de::DeserializeOwned};

pub use synod_derive::RemoteMessage;

/// A message that can cross nodes, and its result back. Derive it.
pub trait RemoteMessage:
    Message<Result: Serialize + DeserializeOwned + Send> + Serialize + DeserializeOwned + Send + 'static
{
    /// Its identity on the wire: chosen by hand, stable, never a module path.
    const NAME: &'static str;
}
