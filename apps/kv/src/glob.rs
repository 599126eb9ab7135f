//! The patterns of `KEYS` and `SCAN … MATCH`: `*`, `?`, `[a-z]`, `[^a]` and `\x`, over bytes, with
//! Redis' own answers for patterns that are not well formed.

/// Whether `text` matches `pattern`.
///
/// One pass with a single point of return (the last `*`), so that no pattern takes more than
/// `pattern × text` steps; a recursive matcher takes exponentially many for `a*a*a*a*b`.
pub fn matches(pattern: &[u8], text: &[u8]) -> bool {
    if text.is_empty() {
        // As in Redis `**` does not match it.
        return pattern.is_empty() || matches_all(pattern);
    }
    let (mut p, mut t) = (0, 0);
    // Where to go on when a later part does not match: behind the last star, one byte further.
    let mut star: Option<(usize, usize)> = None;
    loop {
        if p < pattern.len() && pattern[p] == b'*' {
            star = Some((p + 1, t));
            p += 1;
            continue;
        }
        if t == text.len() {
            // Only stars were skipped above, so the pattern must be used up.
            return p == pattern.len();
        }
        let next = if p < pattern.len() { one(&pattern[p..], text[t]) } else { None };
        match (next, star) {
            (Some(len), _) => {
                p += len;
                t += 1;
            }
            (None, Some((after, from))) => {
                star = Some((after, from + 1));
                p = after;
                t = from + 1;
            }
            (None, None) => return false,
        }
    }
}

/// Whether `pattern` is `*`, which matches everything.
pub fn matches_all(pattern: &[u8]) -> bool {
    pattern == b"*"
}

/// Matches one byte against the first element of a pattern that does not begin with a star; gives
/// the element's length.
fn one(pattern: &[u8], byte: u8) -> Option<usize> {
    match pattern[0] {
        b'?' => Some(1),
        b'[' => {
            let (hit, len) = class(pattern, byte);
            hit.then_some(len)
        }
        // A backslash at the very end stands for itself.
        b'\\' if pattern.len() >= 2 => (pattern[1] == byte).then_some(2),
        literal => (literal == byte).then_some(1),
    }
}

/// Matches `byte` against the class that `pattern` begins with. A class that is not closed ends
/// with the pattern.
fn class(pattern: &[u8], byte: u8) -> (bool, usize) {
    let mut at = 1;
    let negated = pattern.get(at) == Some(&b'^');
    if negated {
        at += 1;
    }
    let mut hit = false;
    loop {
        match pattern[at..] {
            [b'\\', literal, ..] => {
                hit |= literal == byte;
                at += 2;
            }
            [b']', ..] => {
                at += 1;
                break;
            }
            [] => break,
            [from, b'-', to, ..] => {
                hit |= (from.min(to)..=from.max(to)).contains(&byte);
                at += 3;
            }
            [literal, ..] => {
                hit |= literal == byte;
                at += 1;
            }
        }
    }
    (hit != negated, at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_in_redis() {
        let cases: &[(&str, &str, bool)] = &[
            ("*", "", true),
            ("", "", true),
            ("", "a", false),
            ("h?llo", "hello", true),
            ("h?llo", "hllo", false),
            ("h*llo", "heeeello", true),
            ("h[ae]llo", "hallo", true),
            ("h[ae]llo", "hillo", false),
            ("h[^e]llo", "hallo", true),
            ("h[^e]llo", "hello", false),
            ("h[a-b]llo", "hbllo", true),
            ("h[b-a]llo", "hallo", true),
            ("h\\*llo", "h*llo", true),
            ("h\\*llo", "hxllo", false),
            ("a\\", "a\\", true),
            ("[\\]]", "]", true),
            ("[abc", "b", true),
            ("[", "[", false),
            ("*a*b", "xxaxxb", true),
            ("*a*b", "xxaxxbc", false),
            ("**", "abc", true),
            ("**", "", false),
            ("?*", "", false),
            ("a**", "a", true),
        ];
        for &(pattern, text, expected) in cases {
            assert_eq!(
                matches(pattern.as_bytes(), text.as_bytes()),
                expected,
                "{pattern} against {text}"
            );
        }
    }

    #[test]
    fn a_hostile_pattern_takes_no_exponential_time() {
        let pattern = "a*".repeat(2_000) + "b";
        let text = "a".repeat(5_000);
        assert!(!matches(pattern.as_bytes(), text.as_bytes()));
    }
}
