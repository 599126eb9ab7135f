//! From the replica's compact replies to RESP2 or RESP3.

use bytes::{BufMut, BytesMut};

use crate::reply::{BadReply, Element};

/// The version of the protocol a client has chosen with `HELLO`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// RESP2, where everyone begins.
    #[default]
    Two,
    /// RESP3.
    Three,
}

impl Protocol {
    /// The number that `HELLO` takes and shows.
    pub fn number(self) -> i64 {
        match self {
            Self::Two => 2,
            Self::Three => 3,
        }
    }
}

/// Writes an encoded reply to `out` as `protocol` has it. An error leaves `out` as it was.
pub fn transcode(mut reply: &[u8], protocol: Protocol, out: &mut BytesMut) -> Result<(), BadReply> {
    let start = out.len();
    while !reply.is_empty() {
        match Element::split(reply) {
            Ok((element, rest)) => {
                write(element, protocol, out);
                reply = rest;
            }
            Err(error) => {
                out.truncate(start);
                return Err(error);
            }
        }
    }
    Ok(())
}

fn write(element: Element<'_>, protocol: Protocol, out: &mut BytesMut) {
    let three = protocol == Protocol::Three;
    match element {
        Element::Simple(text) => line(b'+', text, out),
        Element::Error(text) => line(b'-', text, out),
        Element::Integer(value) => number(b':', value, out),
        Element::Verbatim(text) if three => {
            number(b'=', len_i64(text.len() + 4), out);
            out.put_slice(b"txt:");
            out.put_slice(text);
            out.put_slice(b"\r\n");
        }
        Element::Bulk(bytes) | Element::Verbatim(bytes) => {
            number(b'$', len_i64(bytes.len()), out);
            out.put_slice(bytes);
            out.put_slice(b"\r\n");
        }
        Element::Null | Element::NullArray if three => out.put_slice(b"_\r\n"),
        Element::Null => out.put_slice(b"$-1\r\n"),
        Element::NullArray => out.put_slice(b"*-1\r\n"),
        Element::Map(pairs) if three => number(b'%', len_i64(pairs), out),
        Element::Set(count) if three => number(b'~', len_i64(count), out),
        Element::Array(_) | Element::Map(_) | Element::Set(_) => {
            number(b'*', len_i64(element.children()), out);
        }
    }
}

/// A status or an error: whatever text it repeats, it stays one line.
fn line(tag: u8, text: &[u8], out: &mut BytesMut) {
    out.put_u8(tag);
    if text.iter().any(|byte| matches!(byte, b'\r' | b'\n')) {
        out.extend(
            text.iter().map(|byte| if matches!(byte, b'\r' | b'\n') { b' ' } else { *byte }),
        );
    } else {
        out.put_slice(text);
    }
    out.put_slice(b"\r\n");
}

fn number(tag: u8, value: i64, out: &mut BytesMut) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    let mut rest = value.unsigned_abs();
    loop {
        at -= 1;
        digits[at] = b'0' + u8::try_from(rest % 10).expect("a digit");
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.put_u8(tag);
    if value < 0 {
        out.put_u8(b'-');
    }
    out.put_slice(&digits[at..]);
    out.put_slice(b"\r\n");
}

fn len_i64(len: usize) -> i64 {
    i64::try_from(len).expect("replies are limited to 8 MiB")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reply::Reply;

    fn both(write: impl Fn(&mut Reply)) -> (String, String) {
        let mut reply = Reply::new();
        write(&mut reply);
        let bytes = reply.into_bytes();
        let text = |protocol| {
            let mut out = BytesMut::new();
            transcode(&bytes, protocol, &mut out).unwrap();
            String::from_utf8(out.to_vec()).unwrap()
        };
        (text(Protocol::Two), text(Protocol::Three))
    }

    #[test]
    fn each_element_has_its_form_in_each_protocol() {
        let same = |text: &str| (text.to_owned(), text.to_owned());
        assert_eq!(both(Reply::ok), same("+OK\r\n"));
        assert_eq!(both(|r| r.error("ERR a\r\nb")), same("-ERR a  b\r\n"));
        assert_eq!(both(|r| r.integer(i64::MIN)), same(":-9223372036854775808\r\n"));
        assert_eq!(both(|r| r.integer(0)), same(":0\r\n"));
        assert_eq!(both(|r| r.bulk(b"")), same("$0\r\n\r\n"));
        assert_eq!(both(Reply::null), ("$-1\r\n".into(), "_\r\n".into()));
        assert_eq!(both(Reply::null_array), ("*-1\r\n".into(), "_\r\n".into()));
        assert_eq!(both(|r| r.array(2)), same("*2\r\n"));
        assert_eq!(both(|r| r.map(2)), ("*4\r\n".into(), "%2\r\n".into()));
        assert_eq!(both(|r| r.set(2)), ("*2\r\n".into(), "~2\r\n".into()));
        assert_eq!(both(|r| r.verbatim("hi")), ("$2\r\nhi\r\n".into(), "=6\r\ntxt:hi\r\n".into()));
    }

    #[test]
    fn a_broken_reply_leaves_the_output_as_it_was() {
        let mut out = BytesMut::from(&b"before"[..]);
        let mut reply = Reply::new();
        reply.ok();
        reply.bulk(b"cut");
        let bytes = reply.into_bytes();
        let cut = &bytes[..bytes.len() - 1];
        assert_eq!(transcode(cut, Protocol::Two, &mut out), Err(BadReply));
        assert_eq!(&out[..], b"before");
    }
}
