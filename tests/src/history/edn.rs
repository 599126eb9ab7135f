//! A history as EDN, the form that Jepsen's Knossos and Elle read: one map a line, in the order of
//! time, each call as an `:invoke` and, unless the test ended first, one of `:ok`, `:fail` (it
//! surely did nothing) and `:info` (nobody knows; that `:process` makes no more calls).
//!
//! ```edn
//! {:index 0, :time 0, :process 3, :type :invoke, :f :cas, :value [2 [7 8]]}
//! {:index 1, :time 412881, :process 3, :type :ok, :f :cas, :value [2 [7 8]]}
//! ```
//!
//! `:value` is a pair of the key and the argument or result, as `jepsen.independent` has it:
//! - `:read` `[key nil]`, then `[key value]`; `value` is `nil` while the key is not there
//! - `:write` `[key value]`
//! - `:cas` `[key [old new]]`; one that found another value is a `:fail` with `:found value`
//! - `:incr` `[key nil]`, then `[key value]` with the value it made; a key not there counts as 0
//!
//! `:time` is in nanoseconds since the first call, on one clock.

use std::fmt::{self, Write as _};

use super::{Call, Operation, Told};

/// The whole history as text.
///
/// # Panics
/// Never: memory takes every text.
pub fn render(history: &[Operation]) -> String {
    let first = history.iter().map(|one| one.began).min().unwrap_or_default();
    // At one moment begins come first, as the judge has it.
    let mut events: Vec<_> = history.iter().map(|one| (one.began, false, one)).collect();
    events.extend(history.iter().map(|one| (one.ended, true, one)));
    events.sort_by_key(|(at, ended, one)| (*at, *ended, one.process));
    let mut text = String::new();
    for (index, (at, ended, one)) in events.iter().enumerate() {
        let kind = if *ended { end(one.call, one.told) } else { "invoke" };
        let Operation { process, key, call, told, .. } = one;
        let shown = if *ended { *told } else { Told::Unknown };
        let time = at.since(first).as_nanos();
        writeln!(
            text,
            "{{:index {index}, :time {time}, :process {process}, :type :{kind}, :f :{}, \
             :value [{key} {}]{}}}",
            name(*call),
            Argument(*call, shown),
            if *ended { found(*call, *told) } else { String::new() },
        )
        .expect("memory");
    }
    text
}

const fn name(call: Call) -> &'static str {
    match call {
        Call::Read => "read",
        Call::Write(_) => "write",
        Call::Cas { .. } => "cas",
        Call::Incr => "incr",
    }
}

const fn end(call: Call, told: Told) -> &'static str {
    match (call, told) {
        (_, Told::Unknown) => "info",
        (_, Told::Refused | Told::Missed) | (Call::Cas { .. }, Told::Value(_)) => "fail",
        (_, Told::Value(_) | Told::Done | Told::Counted(_)) => "ok",
    }
}

fn found(call: Call, told: Told) -> String {
    match (call, told) {
        (Call::Cas { .. }, Told::Value(value)) => format!(", :found {}", Nil(value)),
        _ => String::new(),
    }
}

/// What stands beside the key.
struct Argument(Call, Told);

impl fmt::Display for Argument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0, self.1) {
            (Call::Write(value), _) => write!(f, "{value}"),
            (Call::Cas { old, new }, _) => write!(f, "[{old} {new}]"),
            (Call::Read, Told::Value(value)) => Nil(value).fmt(f),
            (Call::Incr, Told::Counted(value)) => write!(f, "{value}"),
            (Call::Read | Call::Incr, _) => f.write_str("nil"),
        }
    }
}

struct Nil(Option<i64>);

impl fmt::Display for Nil {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(value) => write!(f, "{value}"),
            None => f.write_str("nil"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use synod_runtime::world::Instant;

    #[test]
    fn every_call_is_an_invocation_and_an_end_in_the_order_of_time() {
        let one = |process, call, told, began, ended| {
            let [began, ended] = [began, ended].map(Instant::from_nanos);
            Operation { process, key: 2, call, told, began, ended }
        };
        let text = render(&[
            one(0, Call::Read, Told::Value(None), 10, 12),
            one(1, Call::Cas { old: 7, new: 8 }, Told::Value(Some(5)), 11, 14),
            one(0, Call::Incr, Told::Counted(6), 13, 15),
            one(2, Call::Write(9), Told::Unknown, 16, 17),
        ]);
        let expected = "\
{:index 0, :time 0, :process 0, :type :invoke, :f :read, :value [2 nil]}
{:index 1, :time 1, :process 1, :type :invoke, :f :cas, :value [2 [7 8]]}
{:index 2, :time 2, :process 0, :type :ok, :f :read, :value [2 nil]}
{:index 3, :time 3, :process 0, :type :invoke, :f :incr, :value [2 nil]}
{:index 4, :time 4, :process 1, :type :fail, :f :cas, :value [2 [7 8]], :found 5}
{:index 5, :time 5, :process 0, :type :ok, :f :incr, :value [2 6]}
{:index 6, :time 6, :process 2, :type :invoke, :f :write, :value [2 9]}
{:index 7, :time 7, :process 2, :type :info, :f :write, :value [2 9]}
";
        assert_eq!(text, expected);
    }
}
