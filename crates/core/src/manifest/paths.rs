//! Paths as text: no file system is asked, so symbolic links are not followed.

use std::path::{Component, Path, PathBuf};

/// `path`, taken from `dir` when it is relative, without `.` segments. `..` stays: behind a link it means another place.
pub(super) fn resolve(dir: &Path, path: &Path) -> PathBuf {
    dir.join(path).components().filter(|part| *part != Component::CurDir).collect()
}

/// Where `inner` is below `outer`: its segments joined by `/`, empty when both are the same, `None` when it is elsewhere.
pub(super) fn below(outer: &Path, inner: &Path) -> Option<String> {
    let rest = inner.strip_prefix(outer).ok()?;
    let segments = rest.components().map(|part| part.as_os_str().to_str().map(str::to_owned));
    Some(segments.collect::<Option<Vec<_>>>()?.join("/"))
}

/// A pattern for `exclude` that fits exactly the relative path `path` and everything below it.
pub(super) fn anchored_pattern(path: &str) -> String {
    let mut pattern = String::from("/");
    for c in path.chars() {
        match c {
            '*' | '?' | '[' | '{' | '}' => pattern.extend(['[', c, ']']),
            '\\' => pattern.push_str("\\\\"),
            c => pattern.push(c),
        }
    }
    pattern
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn relative_paths_start_at_the_manifest() {
        let resolved = |path| resolve(Path::new("/srv/app"), Path::new(path));
        assert_eq!(resolved("./data/./x"), Path::new("/srv/app/data/x"));
        assert_eq!(resolved("/etc/app"), Path::new("/etc/app"));
        assert_eq!(resolved("../x"), Path::new("/srv/app/../x"));
    }

    #[test]
    fn patterns_of_paths_have_no_special_characters() {
        assert_eq!(anchored_pattern("a b/c.db"), "/a b/c.db");
        assert_eq!(anchored_pattern("*?[x]{y}\\"), "/[*][?][[]x][{]y[}]\\\\");
    }

    #[test]
    fn below_compares_whole_segments() {
        let rest = |outer, inner| below(Path::new(outer), Path::new(inner));
        assert_eq!(rest("/a/b", "/a/b/c/d"), Some("c/d".into()));
        assert_eq!(rest("/a/b", "/a/b"), Some(String::new()));
        assert_eq!(rest("/a/b", "/a/bc"), None);
    }

    proptest! {
        /// Whatever is written, what is resolved is absolute, keeps its meaning and is resolved already.
        #[test]
        fn a_resolved_path_is_absolute_and_stays_as_it_is(path in "[./a]{0,12}", dir in "(/[ab.]{1,3}){0,3}/") {
            let (path, dir) = (Path::new(&path), Path::new(&dir));
            let resolved = resolve(dir, path);
            prop_assert!(resolved.is_absolute());
            prop_assert!(resolved.components().all(|part| part != Component::CurDir));
            prop_assert_eq!(resolve(dir, &resolved), resolved.clone());
            let ups = |path: &Path| path.components().filter(|part| *part == Component::ParentDir).count();
            let from_dir = if path.is_absolute() { 0 } else { ups(dir) };
            prop_assert_eq!(ups(&resolved), ups(path) + from_dir, "`..` stays");
        }

        #[test]
        fn what_is_below_leads_back(outer in "(/[ab]{1,2}){1,3}", rest in "([ab]{1,2}/){0,3}") {
            let outer = Path::new(&outer);
            let inner = outer.join(&rest);
            let found = below(outer, &inner).unwrap();
            prop_assert_eq!(outer.join(&found), inner.components().collect::<PathBuf>());
            prop_assert_eq!(found.as_str(), rest.trim_end_matches('/'));
            prop_assert_eq!(below(&inner, outer).is_some(), rest.is_empty());
        }
    }

    #[test]
    fn a_path_that_is_no_text_has_no_name_below() {
        use std::os::unix::ffi::OsStrExt as _;
        let odd = Path::new("/a").join(std::ffi::OsStr::from_bytes(b"\xff"));
        assert_eq!(below(Path::new("/a"), &odd), None);
    }
}
