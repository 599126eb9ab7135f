//! Which requests are with a server side by side (S1).

use std::collections::BTreeMap;

use crate::{
    Touches,
    slip::{self, Slip},
};

/// Requests, or what stands for them, with what each touches.
pub(super) type Touching<T> = Vec<(Touches, T)>;

/// Which of these, in their order, may be with the server beside what it has, and which wait: those that
/// meet that, or one that waits before them.
pub(super) fn apart<T>(
    all: impl IntoIterator<Item = (Touches, T)>,
    with_server: &BTreeMap<u64, Touches>,
) -> (Touching<T>, Touching<T>) {
    let (mut go, mut behind) = (Touching::new(), Touching::new());
    for (touches, one) in all {
        let mut before = with_server.values().chain(go.iter().chain(&behind).map(|(one, _)| one));
        let waits = before.any(|other| other.meets(&touches));
        let to = if waits && !slip::is(Slip::SendsBesideAnother) { &mut behind } else { &mut go };
        to.push((touches, one));
    }
    (go, behind)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: one that must wait keeps nobody waiting but whom it meets. Method: requests by their paths.
    #[test]
    fn what_waits_is_passed_by_only_by_what_it_does_not_meet() {
        let below = |path: &&str| match *path {
            "*" => Touches::All,
            path => Touches::Below(path.to_owned()),
        };
        for (with_server, asked, go) in [
            (&[][..], &["/a", "/b"][..], &["/a", "/b"][..]),
            (&["/a"], &["/a", "/b"], &["/b"]),
            (&["/a"], &["/a/x", "/b", "/a/x/y", "/c"], &["/b", "/c"]),
            // Both meet only what waits.
            (&["/a"], &["/a", "/b", "*", "/c"], &["/b"]),
            (&[], &["/a", "/a", "/b"], &["/a", "/b"]),
            (&["*"], &["/a", "/b"], &[]),
            (&["/a"], &["*", "/b"], &[]),
        ] {
            let touched: BTreeMap<u64, Touches> =
                (0..).zip(with_server.iter().map(below)).collect();
            let all = asked.iter().map(|path| (below(path), *path));
            let (sent, behind) = apart(all, &touched);
            let paths =
                |of: &[(Touches, &'static str)]| of.iter().map(|one| one.1).collect::<Vec<_>>();
            assert_eq!(paths(&sent), go, "{asked:?} beside {with_server:?}");
            assert_eq!(paths(&sent).len() + paths(&behind).len(), asked.len());
        }
    }
}
