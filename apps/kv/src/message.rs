//! What HTTP and the command line say to the store: typed messages with preconditions.
//!
//! RESP commands do not pass here; they travel as arguments (see [`crate::args`]).

use std::fmt;

use actix::Message;
use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use synod::replicated::RemoteMessage;

/// Any bytes: a text in JSON, a run of bytes in MessagePack.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Blob(pub Bytes);

impl From<&[u8]> for Blob {
    fn from(bytes: &[u8]) -> Self {
        Self(Bytes::copy_from_slice(bytes))
    }
}

impl Serialize for Blob {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(&String::from_utf8_lossy(&self.0))
        } else {
            serializer.serialize_bytes(&self.0)
        }
    }
}

impl<'de> Deserialize<'de> for Blob {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_byte_buf(BlobVisitor)
    }
}

struct BlobVisitor;

impl de::Visitor<'_> for BlobVisitor {
    type Value = Blob;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text or a run of bytes")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Blob, E> {
        Ok(text.as_bytes().into())
    }

    fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Blob, E> {
        Ok(bytes.into())
    }

    fn visit_byte_buf<E: de::Error>(self, bytes: Vec<u8>) -> Result<Blob, E> {
        Ok(Blob(bytes.into()))
    }
}

/// What must hold of a key before it is written; decided at the very step that writes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Precondition {
    /// `If-Match: "5"`: the version is one of these.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub versions: Option<Vec<u64>>,
    /// `If-Match: *`: the key is there.
    #[serde(default, skip_serializing_if = "is_false")]
    pub exists: bool,
    /// `If-None-Match: *`: the key is not there.
    #[serde(default, skip_serializing_if = "is_false")]
    pub missing: bool,
    /// `If-None-Match: "5"`: the version is none of these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub versions_not: Vec<u64>,
}

impl Precondition {
    /// Whether a key of this version (none: not there) may be written.
    pub fn holds(&self, version: Option<u64>) -> bool {
        let Some(version) = version else { return self.versions.is_none() && !self.exists };
        let listed = |list: &[u64]| list.contains(&version);
        self.versions.as_deref().is_none_or(listed) && !self.missing && !listed(&self.versions_not)
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands it out so")]
fn is_false(flag: &bool) -> bool {
    !flag
}

/// Writes a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Message)]
#[rtype(result = "Written")]
#[serde(deny_unknown_fields)]
pub struct Put {
    /// The key.
    pub key: Blob,
    /// Its new value; a time to live it had is gone.
    pub value: Blob,
    /// What must hold.
    #[serde(default)]
    pub when: Precondition,
}

/// Removes a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Message)]
#[rtype(result = "Written")]
#[serde(deny_unknown_fields)]
pub struct Delete {
    /// The key.
    pub key: Blob,
    /// What must hold.
    #[serde(default)]
    pub when: Precondition,
}

/// What became of a [`Put`] or [`Delete`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Written {
    /// Done; `position` is the key's new version.
    Done {
        /// The position of this command.
        position: u64,
    },
    /// The precondition did not hold; nothing changed.
    Refused {
        /// The version the key has, none when it is not there.
        version: Option<u64>,
    },
    /// The key or the value is larger than 1 MiB; nothing changed.
    TooLarge,
}

/// Asks for a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Message)]
#[rtype(result = "Option<Found>")]
#[serde(deny_unknown_fields)]
pub struct Get {
    /// The key.
    pub key: Blob,
}

/// What is at a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// The value.
    pub value: Blob,
    /// The position of the command that last wrote it.
    pub version: u64,
}

/// Asks for keys in byte order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, Message)]
#[rtype(result = "Page")]
#[serde(deny_unknown_fields, default)]
pub struct List {
    /// Only keys that begin so.
    pub prefix: Blob,
    /// Only keys behind this one.
    pub after: Option<Blob>,
    /// At most so many; 1 000 when not given, never more than 10 000.
    pub limit: Option<u32>,
}

/// Keys in byte order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page {
    /// The keys.
    pub keys: Vec<Blob>,
    /// The last of them, if there are more behind it: the next page's `after`.
    pub next: Option<Blob>,
}

impl RemoteMessage for Put {
    const NAME: &'static str = "kv.put";
}

impl RemoteMessage for Delete {
    const NAME: &'static str = "kv.delete";
}

impl RemoteMessage for Get {
    const NAME: &'static str = "kv.get";
}

impl RemoteMessage for List {
    const NAME: &'static str = "kv.list";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blob_is_text_in_json_and_bytes_in_message_pack() {
        let blob = Blob::from(&b"caf\xc3\xa9"[..]);
        assert_eq!(serde_json::to_string(&blob).unwrap(), "\"café\"");
        assert_eq!(serde_json::from_str::<Blob>("\"café\"").unwrap(), blob);
        let binary = Blob::from(&[0, 255, 7][..]);
        let packed = rmp_serde::to_vec_named(&binary).unwrap();
        assert_eq!(rmp_serde::from_slice::<Blob>(&packed).unwrap(), binary);
    }

    #[test]
    fn preconditions_hold_as_http_says() {
        let five = Precondition { versions: Some(vec![5]), ..Precondition::default() };
        assert!(five.holds(Some(5)) && !five.holds(Some(6)) && !five.holds(None));
        let missing = Precondition { missing: true, ..Precondition::default() };
        assert!(missing.holds(None) && !missing.holds(Some(5)));
        let there = Precondition { exists: true, ..Precondition::default() };
        assert!(there.holds(Some(5)) && !there.holds(None));
        let not_five = Precondition { versions_not: vec![5], ..Precondition::default() };
        assert!(not_five.holds(None) && not_five.holds(Some(6)) && !not_five.holds(Some(5)));
    }
}
