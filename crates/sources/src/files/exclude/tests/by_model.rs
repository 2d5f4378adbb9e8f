//! Patterns beside a slow and simple way to decide them. What fits is not backed up: a pattern that fits too much loses data.

use super::*;
use proptest::prelude::*;

/// One part of a pattern: any number of folders, or a name with `*` and `?` in it.
#[derive(Debug, Clone)]
enum Part {
    Folders,
    Name(String),
}

fn part() -> impl Strategy<Value = Part> {
    prop_oneof![1 => Just(Part::Folders), 5 => "[ab.*?]{1,4}".prop_filter("a name", |name| {
        !name.contains("**") && name != "." && name != ".."
    }).prop_map(Part::Name)]
}

/// A name that a file can have.
fn name() -> impl Strategy<Value = String> {
    "[ab.]{1,3}".prop_filter("no way elsewhere", |name| name != "." && name != "..")
}

fn fits_name(pattern: &[u8], name: &[u8]) -> bool {
    match pattern.split_first() {
        None => name.is_empty(),
        Some((b'*', rest)) => (0..=name.len()).any(|taken| fits_name(rest, &name[taken..])),
        Some((b'?', rest)) => !name.is_empty() && fits_name(rest, &name[1..]),
        Some((letter, rest)) => name.first() == Some(letter) && fits_name(rest, &name[1..]),
    }
}

fn fits(parts: &[Part], path: &[&str]) -> bool {
    match parts.split_first() {
        None => path.is_empty(),
        // At the end it stands for what is below, not for the folder itself.
        Some((Part::Folders, [])) => !path.is_empty(),
        Some((Part::Folders, rest)) => (0..=path.len()).any(|taken| fits(rest, &path[taken..])),
        Some((Part::Name(name), rest)) => {
            path.first().is_some_and(|first| fits_name(name.as_bytes(), first.as_bytes()))
                && fits(rest, &path[1..])
        }
    }
}

fn without_doubles(mut parts: Vec<Part>) -> Vec<Part> {
    parts.dedup_by(|one, other| matches!((one, other), (Part::Folders, Part::Folders)));
    parts
}

proptest! {
    #[test]
    fn a_pattern_fits_what_the_slow_way_says(
        parts in prop::collection::vec(part(), 1..4).prop_map(without_doubles),
        (from_top, is_folder) in any::<(bool, bool)>(),
        paths in prop::collection::vec(prop::collection::vec(name(), 1..5), 1..12),
    ) {
        let names: Vec<&str> = parts.iter().map(|part| match part {
            Part::Folders => "**",
            Part::Name(name) => name,
        }).collect();
        let pattern = format!("{}{}{}", if from_top { "/" } else { "" }, names.join("/"), if is_folder { "/" } else { "" });
        let excludes = Excludes::new(std::slice::from_ref(&pattern)).unwrap();
        for path in paths {
            let path: Vec<&str> = path.iter().map(String::as_str).collect();
            // Without a slash before its end, a pattern is about the name alone, wherever it is.
            let expected = if from_top || parts.len() > 1 {
                fits(&parts, &path)
            } else {
                fits(&[&[Part::Folders], &parts[..]].concat(), &path)
            };
            prop_assert_eq!(excludes.fits(Path::new(&path.join("/"))), expected, "`{}` and {:?}", pattern, path);
        }
    }

    #[test]
    fn several_patterns_fit_what_one_of_them_fits(
        patterns in prop::collection::vec("[ab*]{1,2}(/[ab]{1,2})?", 0..5).prop_filter("no **", |all| all.iter().all(|one| !one.contains("**"))),
        path in prop::collection::vec("[ab]{1,2}", 1..4),
    ) {
        let path = path.join("/");
        let one_by_one = patterns.iter().any(|pattern| Excludes::new(std::slice::from_ref(pattern)).unwrap().fits(Path::new(&path)));
        let together = Excludes::new(&patterns).unwrap();
        prop_assert_eq!(together.fits(Path::new(&path)), one_by_one);
        prop_assert_eq!(together.patterns(), &patterns[..]);
    }
}

/// It would fit everything: a component would be backed up, and nothing of it would be there.
#[test]
fn a_pattern_of_nothing_is_refused() {
    for pattern in ["", "/", "//", "///"] {
        let error = Excludes::new(&["a".to_owned(), pattern.to_owned()]).unwrap_err();
        assert_eq!((error.kind(), error.code()), (ErrorKind::Invalid, codes::USAGE), "`{pattern}`");
    }
    assert!(!Excludes::default().fits(Path::new("a")));
}

#[test]
fn names_that_are_not_text_are_matched_byte_by_byte() {
    use std::os::unix::ffi::OsStrExt as _;
    let path = |bytes: &'static [u8]| Path::new(std::ffi::OsStr::from_bytes(bytes));
    let excludes = Excludes::new(&["*.tmp".to_owned(), "caf?".to_owned()]).unwrap();
    assert!(excludes.fits(path(b"\xff.tmp")) && excludes.fits(path(b"a/\xe9\xff.tmp")));
    assert!(!excludes.fits(path(b"\xff.tmq")));
}
