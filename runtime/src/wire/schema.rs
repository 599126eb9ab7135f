//! The form of a message, and whether what one build writes another can read.
//!
//! A message may gain fields that its reader can do without (`#[serde(default)]`, an `Option`), in
//! either build: named maps carry them or not. It may not change a field's type, need what the
//! other build does not send, or change its result. Both builds see this from each other's
//! [`Fingerprint`]s before any message is sent.

use serde::{Deserialize, Serialize};

use super::name_hash;

/// A message's form, written down by `derive(RemoteMessage)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schema {
    /// What it is (`map` for named fields) and what serde was told about the whole of it. Empty:
    /// never compared.
    pub shape: &'static str,
    /// Raised by hand when a type inside the message changed: `#[remote(revision = 2)]`.
    pub revision: u32,
    /// Named fields, or an enum's variants.
    pub members: &'static [Member],
    /// Whether members it does not know are an error to its reader.
    pub strict: bool,
    /// The result's type. Empty: never compared.
    pub reply: &'static str,
}

/// A field or a variant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member {
    /// Its name on the wire.
    pub name: &'static str,
    /// Its type, without the path to it.
    pub kind: &'static str,
    /// Whether its reader cannot do without it.
    pub needed: bool,
}

impl Schema {
    /// Of a message whose `RemoteMessage` is written by hand: never compared.
    pub const UNCHECKED: Self =
        Self { shape: "", revision: 0, members: &[], strict: false, reply: "" };

    /// What other nodes are told of the message `name` of this form.
    pub fn fingerprint(&self, name: &str) -> Fingerprint {
        let hash = |text: &str| if text.is_empty() { 0 } else { name_hash(text) };
        let shape = match self.shape {
            "" => 0,
            shape => name_hash(&format!("{shape} {}", self.revision)),
        };
        let member = |member: &Member| MemberPrint {
            name: name_hash(member.name),
            kind: name_hash(member.kind),
            needed: member.needed,
        };
        Fingerprint {
            name: name.to_owned(),
            shape,
            members: self.members.iter().map(member).collect(),
            strict: self.strict,
            reply: hash(self.reply),
        }
    }

    /// Names `mismatch` for people of the build that has this form.
    pub(crate) fn explain(&self, mismatch: Mismatch) -> String {
        let of = |hash| self.members.iter().find(|member| name_hash(member.name) == hash);
        let named = |hash| of(hash).map_or("(unknown here)", |member| member.name);
        match mismatch {
            Mismatch::Shape => "another kind of message, or another revision, there".to_owned(),
            Mismatch::Reply => format!("its result is not {} there", self.reply),
            Mismatch::Kind(hash) => {
                let kind = of(hash).map_or("", |member| member.kind);
                format!("`{}` is {kind} here and something else there", named(hash))
            }
            Mismatch::Missing(hash) => match of(hash) {
                Some(member) => format!("`{}` is needed here and not sent there", member.name),
                None => "a field that is needed there is not sent here".to_owned(),
            },
            Mismatch::Unknown(hash) => match of(hash) {
                Some(member) => format!("`{}` is not allowed there", member.name),
                None => "a field that is sent there is not allowed here".to_owned(),
            },
        }
    }
}

/// A [`Schema`] as it is told to other nodes: names and types as 64-bit hashes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fingerprint {
    /// The message's name.
    pub name: String,
    /// Hash of shape and revision; 0 for a form that is never compared.
    pub shape: u64,
    /// By hashes.
    pub members: Vec<MemberPrint>,
    /// See [`Schema::strict`].
    pub strict: bool,
    /// Hash of the result's type; 0 when it is never compared.
    pub reply: u64,
}

/// A [`Member`] as it is told to other nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberPrint {
    /// Hash of its name.
    pub name: u64,
    /// Hash of its type.
    pub kind: u64,
    /// See [`Member::needed`].
    pub needed: bool,
}

/// Why one build cannot read another's message. Names are hashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mismatch {
    /// Map against tuple, another revision, another way to write the whole.
    Shape,
    /// Another result.
    Reply,
    /// This member has another type.
    Kind(u64),
    /// The reader needs this member and the writer does not send it.
    Missing(u64),
    /// The writer sends this member and the reader refuses members it does not know.
    Unknown(u64),
}

impl Fingerprint {
    /// The most bytes it takes in a frame.
    pub(crate) fn bytes_max(&self) -> usize {
        self.name.len() + FIXED_BYTES_MAX + self.members.len() * MEMBER_BYTES_MAX
    }

    /// Whether `reader` can read what this one writes and this one its answer.
    pub(crate) fn check(&self, reader: &Self) -> Result<(), Mismatch> {
        if self.shape == 0 || reader.shape == 0 {
            return Ok(());
        }
        if self.shape != reader.shape {
            return Err(Mismatch::Shape);
        }
        for theirs in &reader.members {
            match self.member(theirs.name) {
                Some(mine) if mine.kind != theirs.kind => return Err(Mismatch::Kind(mine.name)),
                None if theirs.needed => return Err(Mismatch::Missing(theirs.name)),
                Some(_) | None => {}
            }
        }
        let unknown = |mine: &&MemberPrint| reader.member(mine.name).is_none();
        if reader.strict
            && let Some(unknown) = self.members.iter().find(unknown)
        {
            return Err(Mismatch::Unknown(unknown.name));
        }
        if self.reply != reader.reply && self.reply != 0 && reader.reply != 0 {
            return Err(Mismatch::Reply);
        }
        Ok(())
    }

    fn member(&self, name: u64) -> Option<&MemberPrint> {
        self.members.iter().find(|member| member.name == name)
    }
}

/// Keys, two hashes and a flag as a named map, with room for the lengths.
const FIXED_BYTES_MAX: usize = 64;

/// Keys, two hashes and a flag as a named map.
const MEMBER_BYTES_MAX: usize = 40;

#[cfg(test)]
mod tests {
    use super::*;

    const fn needed(name: &'static str, kind: &'static str) -> Member {
        Member { name, kind, needed: true }
    }

    const fn optional(name: &'static str, kind: &'static str) -> Member {
        Member { name, kind, needed: false }
    }

    const fn map(members: &'static [Member]) -> Schema {
        Schema { shape: "map", revision: 0, members, strict: false, reply: "u64" }
    }

    fn check(writer: Schema, reader: Schema) -> Result<(), String> {
        let mismatch = writer.fingerprint("m").check(&reader.fingerprint("m"));
        mismatch.map_err(|mismatch| reader.explain(mismatch))
    }

    const OLD: Schema = map(&[needed("amount", "i64")]);
    const NOTED: Schema = map(&[needed("amount", "i64"), optional("note", "Option<String>")]);
    const PRICED: Schema = map(&[needed("amount", "i64"), needed("currency", "String")]);
    const RETYPED: Schema = map(&[needed("amount", "String")]);

    #[test]
    fn a_field_that_its_reader_can_do_without_may_be_added() {
        assert_eq!((check(OLD, NOTED), check(NOTED, OLD)), (Ok(()), Ok(())));
    }

    #[test]
    fn a_needed_field_can_be_left_out_by_its_reader_and_not_by_its_writer() {
        assert_eq!(check(PRICED, OLD), Ok(()));
        assert_eq!(check(OLD, PRICED).unwrap_err(), "`currency` is needed here and not sent there");
    }

    #[test]
    fn another_type_shape_revision_or_result_is_refused() {
        let why = check(OLD, RETYPED).unwrap_err();
        assert_eq!(why, "`amount` is String here and something else there");
        assert!(check(RETYPED, OLD).is_err());
        assert!(check(OLD, Schema { shape: "(i64)", ..OLD }).is_err());
        assert!(check(OLD, Schema { revision: 1, ..OLD }).is_err());
        assert!(check(OLD, Schema { reply: "()", ..OLD }).unwrap_err().contains("not () there"));
        assert_eq!(check(OLD, Schema { reply: "", ..OLD }), Ok(()));
        assert_eq!(check(OLD, Schema::UNCHECKED), Ok(()));
    }

    #[test]
    fn a_strict_reader_is_not_sent_what_it_does_not_know() {
        let strict = Schema { strict: true, ..OLD };
        assert!(check(NOTED, strict).unwrap_err().contains("not allowed here"));
        assert_eq!(check(OLD, Schema { strict: true, ..NOTED }), Ok(()));
    }

    #[test]
    fn a_fingerprint_takes_no_more_bytes_than_it_says() {
        let print = NOTED.fingerprint("a.name.of.some.length");
        let bytes = crate::message::encode(&print).unwrap();
        assert!(bytes.len() <= print.bytes_max(), "{} > {}", bytes.len(), print.bytes_max());
    }
}
