//! Patterns of paths that are left out.

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use retoma_core::{Error, ErrorKind, Result, error::codes};
use std::path::Path;

/// Patterns as in `.gitignore`: one without a slash fits a name anywhere, one with a slash a path from the component's
/// folder on; `*` does not cross a slash, `**` does. A folder that fits is left out with all that is in it.
#[derive(Debug, Clone, Default)]
pub struct Excludes {
    patterns: Vec<String>,
    set: GlobSet,
}

impl Excludes {
    /// Reads the patterns.
    ///
    /// # Errors
    /// `Invalid`, naming the pattern that can't be understood.
    pub fn new(patterns: &[String]) -> Result<Self> {
        let mut set = GlobSetBuilder::new();
        for pattern in patterns {
            let anchored = pattern.trim_end_matches('/');
            if anchored.is_empty() {
                // As a name at any depth, nothing would fit everything.
                let message = format!("the pattern `{pattern}` names nothing");
                return Err(Error::new(ErrorKind::Invalid, codes::USAGE, message)
                    .with_hint("leave it out, or write a name or a path"));
            }
            let full = match anchored.strip_prefix('/') {
                Some(rest) => rest.to_owned(),
                None if anchored.contains('/') => anchored.to_owned(),
                None => format!("**/{anchored}"),
            };
            let glob = GlobBuilder::new(&full)
                .literal_separator(true)
                .build()
                .map_err(|error| bad(pattern, &error))?;
            set.add(glob);
        }
        let set = set.build().map_err(|error| bad(&patterns.join(", "), &error))?;
        Ok(Self { patterns: patterns.to_vec(), set })
    }

    /// Whether `path`, relative to the component's folder, is left out.
    pub fn fits(&self, path: &Path) -> bool {
        !self.set.is_empty() && self.set.is_match(path)
    }

    /// The patterns as they were written.
    pub fn patterns(&self) -> &[String] {
        &self.patterns
    }
}

fn bad(pattern: &str, error: &globset::Error) -> Error {
    let message = format!("the pattern `{}` cannot be understood: {}", pattern.escape_debug(), error.kind());
    Error::new(ErrorKind::Invalid, codes::USAGE, message)
}

#[cfg(test)]
mod tests {
    mod by_model;

    use super::*;

    #[test]
    fn names_fit_anywhere_and_paths_from_the_top() {
        let patterns = ["*.tmp", "/cache", "logs/*.gz", "a/**/z", "dir/"].map(str::to_owned);
        let excludes = Excludes::new(&patterns).unwrap();
        for path in ["x.tmp", "deep/er/x.tmp", "cache", "logs/1.gz", "a/b/c/z", "a/z", "some/dir"] {
            assert!(excludes.fits(Path::new(path)), "{path}");
        }
        for path in ["x.tmp2", "deep/cache", "logs/deep/1.gz", "b/a/z", "dirt"] {
            assert!(!excludes.fits(Path::new(path)), "{path}");
        }
    }

    #[test]
    fn a_broken_pattern_is_named() {
        let error = Excludes::new(&["a[".to_owned()]).unwrap_err();
        assert!(error.to_string().contains("`a[`"), "{error}");
    }
}
