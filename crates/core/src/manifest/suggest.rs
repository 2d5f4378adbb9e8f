//! "Did you mean": the known word nearest to an unknown one.

/// The candidate nearest to `word`, when it is near enough to be what was meant: at most a third of its letters differ.
pub(super) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let word = word.to_lowercase();
    let letters = word.chars().count();
    // Far longer words are no typo, and the distance is quadratic in the length.
    if letters == 0 || letters > 64 {
        return None;
    }
    candidates
        .into_iter()
        .map(|candidate| (distance(&word, &candidate.to_lowercase()), candidate))
        .filter(|(distance, candidate)| *distance <= (candidate.chars().count().max(letters) / 3).max(1))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate.to_owned())
}

/// Damerau–Levenshtein distance (optimal string alignment): insert, delete, replace, swap neighbours.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![(0..=b.len()).collect::<Vec<_>>()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replace = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = replace.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn distances_count_single_edits() {
        for (a, b, expected) in [
            ("", "abc", 3),
            ("tier", "tiers", 1),
            ("teir", "tier", 1),
            ("kitten", "sitting", 3),
            ("same", "same", 0),
        ] {
            assert_eq!(distance(a, b), expected, "{a} {b}");
            assert_eq!(distance(b, a), expected, "{b} {a}");
        }
    }

    #[test]
    fn only_near_words_are_suggested() {
        let words = ["tier", "name", "repositories"];
        assert_eq!(nearest("teir", words).as_deref(), Some("tier"));
        assert_eq!(nearest("Tier", words).as_deref(), Some("tier"));
        assert_eq!(nearest("repository", words).as_deref(), Some("repositories"));
        assert_eq!(nearest("colour", words), None);
        assert_eq!(nearest("", words), None);
        assert_eq!(nearest(&"x".repeat(10_000), words), None);
    }

    #[test]
    fn a_third_of_the_letters_may_differ_and_the_first_of_the_nearest_is_meant() {
        // One letter of a short word, two of six, not three of eight.
        for (word, candidate, is_near) in [
            ("a", "b", true),
            ("ab", "xy", false),
            ("abcdef", "abcdxy", true),
            ("abcdef", "abcxyz", false),
            ("abcdefgh", "abcdexyz", false),
            ("abc", "abcdef", false),
            ("abcd", "abcdef", true),
            ("été", "ete", false),
        ] {
            assert_eq!(nearest(word, [candidate]).is_some(), is_near, "{word} {candidate}");
        }
        assert_eq!(nearest("aaaa", ["aaab", "aaac"]).as_deref(), Some("aaab"));
        assert_eq!(
            nearest("aaaaaa", ["aaaabb", "aaaaac"]),
            Some("aaaaac".to_owned()),
            "the nearest, not the first near one"
        );
        let longest = "x".repeat(64);
        assert_eq!(nearest(&longest, [longest.as_str()]), Some(longest.clone()));
        assert_eq!(nearest(&format!("{longest}x"), [longest.as_str()]), None);
    }

    /// The definition, written down as it is in books: slow.
    fn by_definition(one: &[char], other: &[char]) -> usize {
        let (Some((last, rest)), Some((other_last, other_rest))) = (one.split_last(), other.split_last())
        else {
            return one.len() + other.len();
        };
        let replaced = by_definition(rest, other_rest) + usize::from(last != other_last);
        let edited = replaced.min(by_definition(rest, other) + 1).min(by_definition(one, other_rest) + 1);
        match (rest.split_last(), other_rest.split_last()) {
            (Some((before, rest)), Some((other_before, other_rest)))
                if before == other_last && last == other_before =>
            {
                edited.min(by_definition(rest, other_rest) + 1)
            }
            _ => edited,
        }
    }

    proptest! {
        #[test]
        fn distances_are_those_of_the_definition(a in "[abc]{0,6}", b in "[abc]{0,6}") {
            let letters = |text: &str| text.chars().collect::<Vec<_>>();
            prop_assert_eq!(distance(&a, &b), by_definition(&letters(&a), &letters(&b)));
        }
    }
}
