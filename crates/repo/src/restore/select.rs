//! Which paths of a snapshot are wanted.

use retoma_core::{Error, ErrorKind, Result, error::codes};
use std::collections::BTreeMap;

/// Splits a path inside a snapshot into its parts; empty ones are passed over.
///
/// # Errors
/// `Invalid` for `.` and `..`.
pub(super) fn parts(path: &[u8]) -> Result<Vec<&[u8]>> {
    let parts: Vec<&[u8]> = path.split(|byte| *byte == b'/').filter(|part| !part.is_empty()).collect();
    if parts.iter().any(|part| matches!(*part, b"." | b"..")) {
        let message = format!("`{}` is not a path inside a snapshot", path.escape_ascii());
        return Err(Error::new(ErrorKind::Invalid, codes::RESTORE_PATH, message)
            .with_hint("give the path as `retoma ls COMPONENT --recursive` shows it"));
    }
    Ok(parts)
}

/// Where a directory or entry lies with regard to a set of paths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    /// Not in the set, and nothing below it.
    Outside,
    /// Not in the set, but something below it may be: a place in the tree of paths.
    Towards(usize),
    /// In the set, with everything below it.
    Inside,
}

/// A set of paths, each with everything below it.
#[derive(Debug)]
pub(super) struct PathSet {
    nodes: Vec<PathNode>,
}

#[derive(Debug, Default)]
struct PathNode {
    children: BTreeMap<Vec<u8>, usize>,
    /// The path that ends here.
    path: Option<Vec<u8>>,
    seen: bool,
}

impl PathSet {
    /// # Errors
    /// `Invalid` for paths with `.` or `..`.
    pub(super) fn new(paths: &[Vec<u8>]) -> Result<Self> {
        let mut nodes = vec![PathNode::default()];
        'paths: for path in paths {
            let mut at = 0;
            for part in parts(path)? {
                if nodes[at].path.is_some() {
                    continue 'paths;
                }
                let next = nodes.len();
                at = *nodes[at].children.entry(part.to_vec()).or_insert(next);
                if at == next {
                    nodes.push(PathNode::default());
                }
            }
            nodes[at].path = Some(path.clone());
            nodes[at].children.clear();
        }
        Ok(Self { nodes })
    }

    /// Where the root of the snapshot lies.
    pub(super) fn start(&mut self) -> Reach {
        self.reached(0)
    }

    /// Where `name` lies in a directory at `reach`.
    pub(super) fn step(&mut self, reach: Reach, name: &[u8]) -> Reach {
        let Reach::Towards(at) = reach else { return reach };
        match self.nodes[at].children.get(name) {
            Some(&next) => self.reached(next),
            None => Reach::Outside,
        }
    }

    fn reached(&mut self, at: usize) -> Reach {
        let node = &mut self.nodes[at];
        node.seen = true;
        if node.path.is_some() { Reach::Inside } else { Reach::Towards(at) }
    }

    /// A path that no step has reached; one that lies below another path of the set is not looked for.
    pub(super) fn unseen(&self) -> Option<&[u8]> {
        let mut waiting = vec![0];
        while let Some(node) = waiting.pop().map(|at: usize| &self.nodes[at]) {
            if let (Some(path), false) = (&node.path, node.seen) {
                return Some(path);
            }
            waiting.extend(node.children.values());
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn set(paths: &[&str]) -> PathSet {
        PathSet::new(&paths.iter().map(|path| path.as_bytes().to_vec()).collect::<Vec<_>>()).unwrap()
    }

    fn reach(set: &mut PathSet, path: &str) -> Reach {
        let start = set.start();
        parts(path.as_bytes()).unwrap().into_iter().fold(start, |at, name| set.step(at, name))
    }

    #[test]
    fn what_lies_below_a_path_is_inside_and_what_leads_there_is_on_the_way() {
        let mut set = set(&["/srv/a/b", "srv/c/", "/srv/c/d"]);
        assert!(matches!(reach(&mut set, "/srv/a"), Reach::Towards(_)));
        assert_eq!(reach(&mut set, "/srv/a/b/x/y"), Reach::Inside);
        assert_eq!(reach(&mut set, "/srv/a/bb"), Reach::Outside);
        assert_eq!(set.unseen(), Some(&b"srv/c/"[..]));
        assert_eq!(reach(&mut set, "/srv/c/z"), Reach::Inside);
        assert_eq!(set.unseen(), None);
    }

    #[test]
    fn the_root_is_everything_and_no_path_is_nothing() {
        assert_eq!(reach(&mut set(&["/", "/a"]), "/x"), Reach::Inside);
        assert_eq!(reach(&mut set(&[]), "/x"), Reach::Outside);
        assert_eq!(set(&["/a/b", "/a"]).unseen(), Some(&b"/a"[..]));
    }

    #[test]
    fn dots_are_refused() {
        for path in ["/a/../b", ".", "a/./b", ".."] {
            assert!(PathSet::new(&[path.as_bytes().to_vec()]).is_err(), "{path}");
        }
    }

    proptest! {
        /// The set is what a list of paths says: inside is what one of them leads to, towards is what leads to one.
        #[test]
        fn a_set_is_the_same_as_its_list_of_paths(
            paths in prop::collection::vec(prop::collection::vec(0u8..3, 0..4), 0..5),
            asked in prop::collection::vec(0u8..3, 0..5),
        ) {
            let written = |path: &[u8]| -> Vec<u8> { path.iter().flat_map(|part| [b'/', b'a' + part]).collect() };
            let mut set = PathSet::new(&paths.iter().map(|path| written(path)).collect::<Vec<_>>()).unwrap();
            let mut at = set.start();
            for part in &asked {
                at = set.step(at, &[b'a' + part]);
            }
            let inside = paths.iter().any(|path| asked.starts_with(path));
            let towards = asked.is_empty() || paths.iter().any(|path| path.starts_with(&asked));
            match at {
                Reach::Inside => prop_assert!(inside),
                Reach::Towards(_) => prop_assert!(!inside && towards),
                Reach::Outside => prop_assert!(!inside && !towards),
            }
            // What was asked for and has not been reached is told, unless another path of the set holds it.
            let outermost = paths.iter().filter(|path| !paths.iter().any(|outer| outer != *path && path.starts_with(outer)));
            let unseen: Vec<Vec<u8>> =
                outermost.filter(|path| !asked.starts_with(path)).map(|path| written(path)).collect();
            match set.unseen() {
                Some(path) => prop_assert!(unseen.contains(&path.to_vec())),
                None => prop_assert!(unseen.is_empty()),
            }
        }
    }
}
