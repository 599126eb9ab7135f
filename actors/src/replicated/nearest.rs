//! "Did you mean …": the nearest of the known names.

/// The one of `known` that differs least from `name`, the first among equals; none if `known` is
/// empty. Ends that look nothing alike still give a name: it shows what names look like here.
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    known.into_iter().min_by_key(|candidate| distance(name, candidate))
}

/// Levenshtein's distance in characters of the first [`COMPARED_CHARS_MAX`] of each.
pub(crate) fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().take(COMPARED_CHARS_MAX).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().take(COMPARED_CHARS_MAX).enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let change = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = change.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

/// The time taken grows with the product of the lengths, and strangers choose one of them.
const COMPARED_CHARS_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_typo_finds_the_name_that_was_meant() {
        let known = ["ledger.balance", "ledger.transfer"];
        assert_eq!(nearest("ledger.tranfser", known), Some("ledger.transfer"));
        assert_eq!(nearest("balance", known), Some("ledger.balance"));
        assert_eq!(nearest("x", []), None);
        assert_eq!((distance("kitten", "sitting"), distance("", "abc")), (3, 3));
    }
}
