//! Finds the field at fault. serde_json says *what* it expected but not *where*, once the text has
//! become a [`Value`].

use std::{error, fmt, slice};

use serde::{
    de::{
        self, DeserializeOwned, DeserializeSeed, Deserializer, IntoDeserializer, MapAccess,
        SeqAccess, Visitor,
    },
    forward_to_deserialize_any,
};
use serde_json::{Error, Map, Value, map};

/// The text of `error`, which reading `args` as an `M` gave, with the path of the field at fault
/// in front: `entries[2].amount: invalid type: …`.
pub(super) fn blame<M: DeserializeOwned>(args: &Value, error: &Error) -> String {
    match M::deserialize(Located(args)) {
        Err(fault) => fault.to_string(),
        // This reader is stricter in nothing and looser in a few things, such as numbers that are
        // the keys of a map: then serde_json's own words have to do.
        Ok(_) => error.to_string(),
    }
}

/// A value that adds its place to every error that passes through it.
struct Located<'a>(&'a Value);

impl<'de> Deserializer<'de> for Located<'de> {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.0 {
            Value::Object(fields) => visitor.visit_map(Fields::new(fields)),
            Value::Array(items) => visitor.visit_seq(Items { items: items.iter(), index: 0 }),
            leaf => leaf.deserialize_any(visitor).map_err(Fault::of),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.0 {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        self.0.deserialize_enum(name, variants, visitor).map_err(Fault::of)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit
        unit_struct seq tuple tuple_struct map struct identifier ignored_any
    }
}

struct Fields<'a> {
    fields: map::Iter<'a>,
    current: Option<(&'a String, &'a Value)>,
}

impl<'a> Fields<'a> {
    fn new(fields: &'a Map<String, Value>) -> Self {
        Self { fields: fields.iter(), current: None }
    }
}

impl<'de> MapAccess<'de> for Fields<'de> {
    type Error = Fault;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Fault> {
        self.current = self.fields.next();
        let key = self.current.map(|(key, _)| key.as_str().into_deserializer());
        key.map(|key| seed.deserialize(key)).transpose()
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Fault> {
        let (key, value) = self.current.expect("serde asks for a value after its key");
        seed.deserialize(Located(value)).map_err(|fault| fault.below(key))
    }
}

struct Items<'a> {
    items: slice::Iter<'a, Value>,
    index: usize,
}

impl<'de> SeqAccess<'de> for Items<'de> {
    type Error = Fault;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Fault> {
        let Some(item) = self.items.next() else { return Ok(None) };
        let place = format!("[{}]", self.index);
        self.index += 1;
        seed.deserialize(Located(item)).map(Some).map_err(|fault| fault.below(&place))
    }
}

/// What is wrong, and where.
#[derive(Debug)]
struct Fault {
    path: String,
    text: String,
}

impl Fault {
    fn of(error: impl fmt::Display) -> Self {
        Self { path: String::new(), text: error.to_string() }
    }

    /// The same fault seen from one level up, where it lies in `step`.
    fn below(self, step: &str) -> Self {
        let dot = if self.path.is_empty() || self.path.starts_with('[') { "" } else { "." };
        Self { path: format!("{step}{dot}{}", self.path), text: self.text }
    }
}

impl de::Error for Fault {
    fn custom<T: fmt::Display>(text: T) -> Self {
        Self::of(text)
    }
}

impl error::Error for Fault {}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.text)
    }
}
