//! Paths as servers read them.

/// The path of `target` so that no spelling leads past a route: escapes are undone but for slashes,
/// doubled slashes are one, `.` and `..` are walked. Without the query.
pub(crate) fn normalised(target: &str) -> String {
    let path = target.split(['?', '#']).next().unwrap_or_default();
    let mut parts: Vec<String> = Vec::new();
    let mut open = path.ends_with('/');
    for part in path.split('/').filter(|part| !part.is_empty()) {
        let part = unescaped(part);
        let dots = matches!(part.as_str(), "." | "..");
        open = path.ends_with('/') || dots;
        match part.as_str() {
            "." => {}
            ".." => drop(parts.pop()),
            _ => parts.push(part),
        }
    }
    let mut out: String = parts.iter().flat_map(|part| ["/", part.as_str()]).collect();
    if open || out.is_empty() {
        out.push('/');
    }
    out
}

/// Escapes of what needs none are undone; a slash stays escaped, since it separates nothing.
fn unescaped(part: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_graphic() && byte != b'/' && byte != b'%';
    String::from_utf8_lossy(&decoded(part, plain)).into_owned()
}

/// All escapes undone, whatever they stand for.
pub(crate) fn all_unescaped(part: &str) -> Vec<u8> {
    decoded(part, |_| true)
}

fn decoded(part: &str, plain: impl Fn(u8) -> bool) -> Vec<u8> {
    let bytes = part.as_bytes();
    let digit = |at: usize| bytes.get(at).and_then(|byte| char::from(*byte).to_digit(16));
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let escape = (byte == b'%').then(|| Some((digit(at + 1)? << 4) | digit(at + 2)?)).flatten();
        match escape.and_then(|code| u8::try_from(code).ok()).filter(|code| plain(*code)) {
            Some(code) => {
                out.push(code);
                at += 3;
            }
            None => {
                out.push(byte);
                at += 1;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_spelling_leads_past_a_route() {
        for target in ["//orders//1", "/a/../orders/1", "/%6Frders/1?x", "/./orders/1"] {
            assert_eq!(normalised(target), "/orders/1", "{target}");
        }
        for (target, path) in [
            ("/orders/.", "/orders/"),
            ("/orders/", "/orders/"),
            ("/orders/..", "/"),
            ("/../..", "/"),
            ("", "/"),
            ("*", "/*"),
            ("/orders%2F1", "/orders%2F1"),
            ("/a%zz%4", "/a%zz%4"),
            ("/%252F", "/%252F"),
        ] {
            assert_eq!(normalised(target), path, "{target}");
        }
        assert_eq!(all_unescaped("a%2Fb%20%"), b"a/b %");
    }
}
