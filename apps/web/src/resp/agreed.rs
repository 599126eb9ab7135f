//! Commands that depend on a clock, as they are sent to every server: by agreed time.
//!
//! A time to live becomes a moment, so that a server that performs the command later does not give
//! more. What is no number, or too large a one, is left as it is: every server refuses it alike.

use bytes::Bytes;

use super::{
    command::{is, name},
    wire::Words,
};
use crate::Stamp;

/// The command as every server is to perform it; `index` is its place in the request.
pub(super) fn agreed(words: &Words, stamp: Stamp, index: usize) -> Words {
    let changed = match name(words).as_str() {
        "EXPIRE" => lifetime(words, stamp, 2, SECOND).map(|at| named(words, "PEXPIREAT", 2, at)),
        "PEXPIRE" => lifetime(words, stamp, 2, 1).map(|at| named(words, "PEXPIREAT", 2, at)),
        "SETEX" if words.len() == 4 => set_until(words, lifetime(words, stamp, 2, SECOND)),
        "PSETEX" if words.len() == 4 => set_until(words, lifetime(words, stamp, 2, 1)),
        "SET" => options(words, stamp, 3),
        "GETEX" => options(words, stamp, 2),
        "RESTORE" => restore(words, stamp),
        "XADD" => identified(words, stamp, index),
        _ => None,
    };
    changed.unwrap_or_else(|| words.clone())
}

/// The moment that the number at `at` means, in units of so many milliseconds.
fn lifetime(words: &Words, stamp: Stamp, at: usize, unit_ms: i64) -> Option<i64> {
    let text = std::str::from_utf8(words.get(at)?).ok()?;
    // Redis takes neither a plus nor zeros before a number.
    let number: i64 = text.parse().ok().filter(|number: &i64| number.to_string() == text)?;
    // What is not to live at all every server ends at once, or refuses.
    let ms = Some(number).filter(|number| *number > 0)?.checked_mul(unit_ms)?;
    ms.checked_add(i64::try_from(stamp.time_ms).ok()?)
}

fn number(number: i64) -> Bytes {
    Bytes::from(number.to_string())
}

/// The same under another name, with another word at `at`.
fn named(words: &Words, name: &'static str, at: usize, moment: i64) -> Words {
    let mut words = words.clone();
    words[0] = Bytes::from_static(name.as_bytes());
    words[at] = number(moment);
    words
}

fn set_until(words: &Words, moment: Option<i64>) -> Option<Words> {
    let [_, key, _, value] = &words[..] else { return None };
    let [set, until] = ["SET", "PXAT"].map(|word| Bytes::from_static(word.as_bytes()));
    Some(vec![set, key.clone(), value.clone(), until, number(moment?)])
}

/// `EX` and `PX` among the options from `from` on.
fn options(words: &Words, stamp: Stamp, from: usize) -> Option<Words> {
    let mut changed = words.clone();
    for at in from..words.len() {
        let unit_ms = match &words[at] {
            word if is(word, "EX") => SECOND,
            word if is(word, "PX") => 1,
            _ => continue,
        };
        changed[at + 1..].first()?;
        changed[at + 1] = number(lifetime(words, stamp, at + 1, unit_ms)?);
        changed[at] = Bytes::from_static(b"PXAT");
        return Some(changed);
    }
    None
}

fn restore(words: &Words, stamp: Stamp) -> Option<Words> {
    if words.iter().skip(4).any(|word| is(word, "ABSTTL")) {
        return None;
    }
    let moment = lifetime(words, stamp, 2, 1)?;
    let mut changed = words.clone();
    changed[2] = number(moment);
    changed.push(Bytes::from_static(b"ABSTTL"));
    Some(changed)
}

/// An entry of a stream whose name the server would make: by agreed time, and its place.
fn identified(words: &Words, stamp: Stamp, index: usize) -> Option<Words> {
    let mut at = 2;
    loop {
        let word = words.get(at)?;
        at += match word {
            word if is(word, "NOMKSTREAM") => 1,
            word if is(word, "LIMIT") => 2,
            word if is(word, "MAXLEN") || is(word, "MINID") => {
                let how = words.get(at + 1)?;
                if is(how, "=") || is(how, "~") { 3 } else { 2 }
            }
            _ => break,
        };
    }
    if &words[at][..] != b"*" {
        return None;
    }
    let mut changed = words.clone();
    let place = stamp.seq.saturating_mul(PLACES).saturating_add(index as u64);
    changed[at] = Bytes::from(format!("{}-{place}", stamp.time_ms));
    Some(changed)
}

const SECOND: i64 = 1_000;

/// More than a request has commands.
const PLACES: u64 = 1 << 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(line: &str) -> String {
        let words = line.split(' ').map(|word| Bytes::copy_from_slice(word.as_bytes())).collect();
        let stamp = Stamp { seq: 2, time_ms: 5_000, seed: 0, redo: false };
        let words = agreed(&words, stamp, 1);
        words.iter().map(|word| String::from_utf8_lossy(word).into_owned() + " ").collect()
    }

    #[test]
    fn what_a_clock_decides_is_decided_by_agreed_time() {
        for (line, expected) in [
            ("EXPIRE k 10", "PEXPIREAT k 15000 "),
            ("expire k 10 NX", "PEXPIREAT k 15000 NX "),
            ("PEXPIRE k 10", "PEXPIREAT k 5010 "),
            ("SETEX k 1 v", "SET k v PXAT 6000 "),
            ("psetex k 1 v", "SET k v PXAT 5001 "),
            ("set k v nx ex 2 get", "set k v nx PXAT 7000 get "),
            ("SET ex px PX 7", "SET ex px PXAT 5007 "),
            ("GETEX k PX 7", "GETEX k PXAT 5007 "),
            ("RESTORE k 7 x REPLACE", "RESTORE k 5007 x REPLACE ABSTTL "),
            ("XADD s * a b", "XADD s 5000-131073 a b "),
            (
                "XADD s NOMKSTREAM MAXLEN ~ 10 LIMIT 5 * a b",
                "XADD s NOMKSTREAM MAXLEN ~ 10 LIMIT 5 5000-131073 a b ",
            ),
            ("XADD s minid 5-1 * a *", "XADD s minid 5-1 5000-131073 a * "),
        ] {
            assert_eq!(sent(line), expected);
        }
    }

    #[test]
    fn what_no_clock_decides_and_what_is_wrong_is_left_as_it_is() {
        for line in [
            "SET k v",
            "SET k v EX",
            "SET k v EX x",
            "SET k v EX 0",
            "SET k v EX +5",
            "PEXPIRE k 007",
            "SET k v EX 9223372036854775807",
            "SET k v PXAT 9",
            "EXPIRE k",
            "EXPIRE k -1",
            "SETEX k 1",
            "RESTORE k 0 x",
            "RESTORE k 9 x ABSTTL",
            "XADD s 5-* a *",
            "XADD s 5-1 a *",
            "XADD s",
            "GET k",
        ] {
            assert_eq!(sent(line), format!("{line} "));
        }
    }
}
