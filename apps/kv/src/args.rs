//! A command and its arguments as one run of bytes, so that the parser copies each command once and
//! the same bytes become request, record and executed step.
//!
//! ```text
//! count u32 | len u32, bytes | len u32, bytes | …        (little-endian)
//! ```

use bytes::Bytes;

/// Collects the arguments of one command.
#[derive(Clone, Debug)]
pub struct ArgsWriter {
    body: Vec<u8>,
    count: u32,
}

impl ArgsWriter {
    /// Starts a command whose arguments have about `bytes` bytes together.
    pub fn with_capacity(count: usize, bytes: usize) -> Self {
        let mut body = Vec::with_capacity(4 + 4 * count + bytes);
        body.extend_from_slice(&[0; 4]);
        Self { body, count: 0 }
    }

    /// Appends an argument.
    pub fn push(&mut self, argument: &[u8]) {
        let len = u32::try_from(argument.len()).expect("arguments are limited to 1 MiB");
        self.body.extend_from_slice(&len.to_le_bytes());
        self.body.extend_from_slice(argument);
        self.count += 1;
    }

    /// How many arguments there are.
    pub fn count(&self) -> usize {
        self.count as usize
    }

    /// How long the encoding is by now.
    pub fn len(&self) -> usize {
        self.body.len()
    }

    /// Whether nothing was pushed.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The encoded command.
    pub fn finish(mut self) -> Bytes {
        self.body[..4].copy_from_slice(&self.count.to_le_bytes());
        self.body.into()
    }
}

/// Encodes the arguments of one command.
pub fn encode<A: AsRef<[u8]>>(arguments: &[A]) -> Bytes {
    let bytes = arguments.iter().map(|argument| argument.as_ref().len()).sum();
    let mut writer = ArgsWriter::with_capacity(arguments.len(), bytes);
    for argument in arguments {
        writer.push(argument.as_ref());
    }
    writer.finish()
}

/// The arguments in `bytes`, borrowed.
pub fn decode(bytes: &[u8]) -> Result<Vec<&[u8]>, BadArgs> {
    let (arguments, rest) = decode_prefix(bytes)?;
    if rest.is_empty() { Ok(arguments) } else { Err(BadArgs) }
}

/// The first argument in `bytes`, the command's name; empty when there is none.
pub fn first(bytes: &[u8]) -> &[u8] {
    let name = split_u32(bytes).and_then(|(_, rest)| {
        let (len, rest) = split_u32(rest)?;
        rest.get(..len as usize).ok_or(BadArgs)
    });
    name.unwrap_or_default()
}

/// The arguments at the beginning of `bytes`, and what follows them.
pub(crate) fn decode_prefix(bytes: &[u8]) -> Result<(Vec<&[u8]>, &[u8]), BadArgs> {
    let (count, mut rest) = split_u32(bytes)?;
    // An argument takes four bytes at least: a lying count allocates nothing.
    if count as usize > rest.len() / 4 {
        return Err(BadArgs);
    }
    let mut arguments = Vec::with_capacity(count as usize);
    for _ in 0..count {
        let (len, tail) = split_u32(rest)?;
        let (argument, tail) = tail.split_at_checked(len as usize).ok_or(BadArgs)?;
        arguments.push(argument);
        rest = tail;
    }
    Ok((arguments, rest))
}

/// A little-endian u32 at the beginning of `bytes`, and what follows it.
pub(crate) fn split_u32(bytes: &[u8]) -> Result<(u32, &[u8]), BadArgs> {
    let (head, rest) = bytes.split_first_chunk::<4>().ok_or(BadArgs)?;
    Ok((u32::from_le_bytes(*head), rest))
}

/// A little-endian u64 at the beginning of `bytes`, and what follows it.
pub(crate) fn split_u64(bytes: &[u8]) -> Result<(u64, &[u8]), BadArgs> {
    let (head, rest) = bytes.split_first_chunk::<8>().ok_or(BadArgs)?;
    Ok((u64::from_le_bytes(*head), rest))
}

/// Bytes that are no encoded command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the bytes are no encoded key/value command")]
pub struct BadArgs;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_was_encoded_is_decoded(arguments: Vec<Vec<u8>>) {
            let bytes = encode(&arguments);
            prop_assert_eq!(decode(&bytes).unwrap(), arguments.iter().map(Vec::as_slice).collect::<Vec<_>>());
        }

        #[test]
        fn garbage_is_refused_or_read_never_a_panic(bytes: Vec<u8>) {
            let _ = decode(&bytes);
        }
    }

    #[test]
    fn a_lying_count_is_refused_without_allocating() {
        assert_eq!(decode(&[0xff; 12]), Err(BadArgs));
        assert_eq!(decode(&[1, 0, 0, 0, 9, 0, 0, 0, b'x']), Err(BadArgs));
    }
}
