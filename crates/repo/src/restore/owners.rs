//! Whose the restored files are, on a machine that gives its users other numbers.
//!
//! A snapshot has the number and the name of each owner. On the machine that was backed up both mean the same. On a new one
//! `postgres` may be 104 where it was 113, and 113 may be somebody else: so the name counts where this machine has it, as it
//! does for `tar` and `rsync`, and the number otherwise.

use super::OwnersBy;
use crate::format::tree::Node;
use std::collections::HashMap;
use std::path::Path;

/// The numbers of this machine's users and groups, by name.
#[derive(Debug, Default)]
pub(super) struct Owners {
    users: HashMap<String, u32>,
    groups: HashMap<String, u32>,
}

impl Owners {
    /// By name, those of `/etc/passwd` and `/etc/group`. Users of a directory service are not in there: their numbers are the
    /// same on all machines that it serves.
    pub(super) fn by(what: OwnersBy) -> Self {
        match what {
            OwnersBy::Name => {
                Self { users: read(Path::new("/etc/passwd")), groups: read(Path::new("/etc/group")) }
            }
            OwnersBy::Number => Self::default(),
        }
    }

    /// User and group that the restored `node` gets.
    pub(super) fn of(&self, node: &Node) -> (u32, u32) {
        let here = |numbers: &HashMap<String, u32>, name: &str, number: u32| {
            numbers.get(name).copied().unwrap_or(number)
        };
        (here(&self.users, &node.user, node.uid), here(&self.groups, &node.group, node.gid))
    }
}

/// A machine without the file has no names.
fn read(path: &Path) -> HashMap<String, u32> {
    std::fs::read_to_string(path).map(|text| numbers(&text)).unwrap_or_default()
}

/// Of lines of the form `name:password:number:…`; the first of a name counts, as in the system's own look-up.
fn numbers(text: &str) -> HashMap<String, u32> {
    let mut numbers = HashMap::new();
    for line in text.lines() {
        let mut fields = line.split(':');
        let (Some(name), Some(Ok(number))) = (fields.next(), fields.nth(1).map(str::parse)) else { continue };
        if !name.is_empty() {
            numbers.entry(name.to_owned()).or_insert(number);
        }
    }
    numbers
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::tree::NodeKind;

    const USERS: &str = "root:x:0:0:root:/root:/bin/sh\nbroken\n:x:7:7::/:/bin/sh\npostgres:x:104:110::/:/bin/sh\npostgres:x:9:9::/:\nbad:x:-1:0:\n";

    fn owned(user: &str, uid: u32, group: &str, gid: u32) -> Node {
        let mut node = Node::new("file", NodeKind::File);
        (node.uid, node.gid) = (uid, gid);
        (node.user, node.group) = (user.into(), group.into());
        node
    }

    #[test]
    fn a_name_that_this_machine_has_counts_more_than_a_number() {
        let owners =
            Owners { users: numbers(USERS), groups: numbers("postgres:x:110:\nssl-cert:x:111:postgres\n") };
        assert_eq!(owners.of(&owned("postgres", 113, "ssl-cert", 120)), (104, 111));
        assert_eq!(owners.of(&owned("postgres", 113, "nobody-here", 120)), (104, 120));
        assert_eq!(owners.of(&owned("ana", 1000, "", 1000)), (1000, 1000), "no name, no other number");
        assert_eq!(owners.of(&owned("", 7, "", 7)), (7, 7), "a line without a name is nobody's");
        assert_eq!(owners.of(&owned("bad", 5, "broken", 6)), (5, 6));
    }

    #[test]
    fn where_numbers_are_asked_for_names_do_not_count() {
        assert_eq!(Owners::by(OwnersBy::Number).of(&owned("root", 113, "root", 120)), (113, 120));
    }

    #[test]
    fn this_machine_has_a_root() {
        assert_eq!(Owners::by(OwnersBy::Name).of(&owned("root", 113, "root", 120)), (0, 0));
    }
}
