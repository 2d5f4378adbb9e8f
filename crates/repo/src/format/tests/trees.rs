//! Trees: Go's modes, links that are not text, and what a changed letter can do.

use super::{beginnings, digits};
use crate::format::time::Time;
use crate::format::tree::{Node, NodeKind, Xattr, from_json, to_json};
use crate::id::BlobId;
use proptest::prelude::*;
use retoma_core::ErrorKind;

const KINDS: [(NodeKind, &str, u32); 8] = [
    (NodeKind::File, "file", 0),
    (NodeKind::Directory, "dir", 0x8000_0000),
    (NodeKind::Symlink, "symlink", 0x0800_0000),
    (NodeKind::BlockDevice, "dev", 0x0400_0000),
    (NodeKind::CharDevice, "chardev", 0x0420_0000),
    (NodeKind::Fifo, "fifo", 0x0200_0000),
    (NodeKind::Socket, "socket", 0x0100_0000),
    (NodeKind::Irregular, "irregular", 0x0008_0000),
];

fn node(name: &str, kind: NodeKind) -> Node {
    let mut node = Node::new(name, kind);
    match kind {
        NodeKind::File => node.content = vec![BlobId([1; 32])],
        NodeKind::Directory => node.subtree = Some(BlobId([2; 32])),
        NodeKind::Symlink => node.link_target = Some(b"there".to_vec().into()),
        _ => {}
    }
    node
}

fn json_of(node: &Node) -> serde_json::Value {
    let tree: serde_json::Value =
        serde_json::from_slice(&to_json(std::slice::from_ref(node)).unwrap()).unwrap();
    tree["nodes"][0].clone()
}

/// `os.FileMode` of Go, bit by bit: `ModeDir`, `ModeSymlink`, `ModeDevice`, `ModeCharDevice`, `ModeNamedPipe`, `ModeSocket`,
/// `ModeIrregular`; set-uid 1 << 23, set-gid 1 << 22, sticky 1 << 20.
#[test]
fn every_kind_and_every_mode_bit_is_written_as_go_writes_it() {
    let bits = [
        (0o4000, 1 << 23),
        (0o2000, 1 << 22),
        (0o1000, 1 << 20),
        (0o400, 0o400),
        (0o010, 0o010),
        (0o001, 0o001),
    ];
    for (kind, name, go_kind) in KINDS {
        for set in 0..1u32 << bits.len() {
            let chosen = bits.iter().enumerate().filter(|(at, _)| set >> at & 1 == 1);
            let (unix, go) = chosen.fold((0, go_kind), |(unix, go), (_, bit)| (unix | bit.0, go | bit.1));
            let node = Node { mode: unix, ..node("a", kind) };
            let json = json_of(&node);
            assert_eq!(
                (json["type"].as_str(), json["mode"].as_u64().unwrap_or(0)),
                (Some(name), u64::from(go))
            );
            let back = from_json(&to_json(&[node]).unwrap()).unwrap();
            assert_eq!((back[0].kind, back[0].mode), (kind, unix), "{name} {unix:o}");
        }
    }
}

#[test]
fn a_link_that_is_not_text_is_kept_byte_by_byte_and_shown_as_well_as_it_goes() {
    let mut link = node("a", NodeKind::Symlink);
    link.link_target = Some(b"caf\xe9".to_vec().into());
    let json = json_of(&link);
    assert_eq!(
        (json["linktarget"].as_str(), json["linktarget_raw"].as_str()),
        (Some("caf\u{fffd}"), Some("Y2Fm6Q=="))
    );
    assert_eq!(from_json(&to_json(&[link.clone()]).unwrap()).unwrap(), [link]);
    assert!(
        json_of(&node("a", NodeKind::Symlink)).get("linktarget_raw").is_none(),
        "text needs no second form"
    );
}

#[test]
fn what_a_kind_does_not_have_is_neither_written_nor_believed() {
    let tree = |node: String| from_json(format!("{{\"nodes\":[{node}]}}").as_bytes());
    let id = digits(9);
    let file = tree(format!(r#"{{"name":"a","type":"file","content":[],"subtree":"{id}"}}"#)).unwrap();
    assert_eq!(file[0].subtree, None, "a file leads to no tree");
    for kind in [NodeKind::Directory, NodeKind::Symlink, NodeKind::Fifo] {
        assert!(json_of(&node("a", kind))["content"].is_null());
    }
    for link in [r#""linktarget":"""#, r#""linktarget":"x","linktarget_raw":"""#] {
        assert!(tree(format!(r#"{{"name":"a","type":"symlink","content":null,{link}}}"#)).is_err(), "{link}");
    }
    for bad in [
        r#""linktarget":"x","linktarget_raw":"*""#,
        r#""extended_attributes":[{"name":"user.a","value":"*"}]"#,
    ] {
        assert!(tree(format!(r#"{{"name":"a","type":"file","content":[],{bad}}}"#)).is_err(), "{bad}");
    }
    for kind in ["", "FILE", "directory", "door"] {
        assert!(tree(format!(r#"{{"name":"a","type":"{kind}","content":[]}}"#)).is_err(), "{kind}");
    }
}

#[test]
fn an_attribute_without_a_value_is_empty_and_all_keep_their_order() {
    let attributes = r#"[{"name":"user.b","value":null},{"name":"user.a","value":"AP8="}]"#;
    let json = format!(
        r#"{{"nodes":[{{"name":"a","type":"file","content":[],"extended_attributes":{attributes}}}]}}"#
    );
    let xattr = |name: &str, value: &[u8]| Xattr { name: name.to_owned(), value: value.to_vec() };
    assert_eq!(
        from_json(json.as_bytes()).unwrap()[0].xattrs,
        [xattr("user.b", b""), xattr("user.a", b"\x00\xff")]
    );
}

#[test]
fn a_directory_without_nodes_is_empty_and_one_without_a_list_too() {
    for json in [r#"{"nodes":[]}"#, r#"{"nodes":null}"#, "{}"] {
        assert_eq!(from_json(json.as_bytes()).unwrap(), [], "{json}");
    }
    assert_eq!(to_json(&[]).unwrap(), b"{\"nodes\":[]}\n");
}

#[test]
fn names_that_no_file_can_have_are_not_even_written() {
    for name in [&b""[..], b".", b"..", b"a/b", b"/", b"a\0"] {
        let node = Node { name: name.to_vec(), ..node("", NodeKind::File) };
        assert!(to_json(&[node]).is_err(), "{}", name.escape_ascii());
    }
}

fn directory() -> Vec<Node> {
    let mut nodes: Vec<Node> = KINDS.iter().map(|(kind, name, _)| node(name, *kind)).collect();
    nodes.sort_by(|a, b| a.name.cmp(&b.name));
    for (number, node) in (1..).zip(&mut nodes) {
        node.mtime = Time::from_unix(i64::from(number), 5);
        (node.uid, node.gid, node.device_id, node.links) = (number, number + 1, number.into(), 2);
        (node.user, node.group) = ("ana".into(), format!("g{number}").as_str().into());
        node.ctime = Time::from_unix(9, i64::from(number));
        node.atime = Time::from_unix(8, i64::from(number));
    }
    nodes
}

#[test]
fn everything_of_a_node_comes_back() {
    assert_eq!(from_json(&to_json(&directory()).unwrap()).unwrap(), directory());
}

#[test]
fn a_tree_that_ends_early_is_refused_wherever_it_ends() {
    let whole = to_json(&directory()).unwrap();
    let without_line_feed = &whole[..whole.len() - 1];
    for beginning in beginnings(without_line_feed) {
        assert_eq!(from_json(beginning).unwrap_err().kind(), ErrorKind::Corrupt, "{} bytes", beginning.len());
    }
    assert_eq!(from_json(without_line_feed).unwrap(), directory());
}

/// Owners' names are shared between nodes; more of them than are remembered must not be mixed up.
#[test]
fn every_node_keeps_its_owners_however_many_there_are() {
    let owned = |number: usize| {
        let mut node = node(&format!("n{number:03}"), NodeKind::File);
        (node.user, node.group) =
            (format!("u{}", number % 40).as_str().into(), format!("g{}", number % 7).as_str().into());
        node
    };
    let nodes: Vec<Node> = (0..200).map(owned).collect();
    assert_eq!(from_json(&to_json(&nodes).unwrap()).unwrap(), nodes);
}

proptest! {
    /// Somebody who holds the key changes one byte of a tree: it is refused, or what is read is still safe to restore.
    #[test]
    fn a_changed_byte_never_gives_a_name_that_leads_elsewhere_or_an_order_that_is_none(at: prop::sample::Index, byte: u8) {
        let mut json = to_json(&directory()).unwrap();
        let at = at.index(json.len());
        json[at] = byte;
        if let Ok(nodes) = from_json(&json) {
            for node in &nodes {
                let name = &node.name[..];
                prop_assert!(!name.is_empty() && name != b"." && name != b"..", "{}", name.escape_ascii());
                prop_assert!(!name.contains(&b'/') && !name.contains(&0), "{}", name.escape_ascii());
                prop_assert_eq!(node.subtree.is_some(), node.kind == NodeKind::Directory);
                prop_assert!(node.kind != NodeKind::Symlink || node.link_target.is_some());
                prop_assert!(node.mode <= 0o7777);
            }
            prop_assert!(nodes.is_sorted_by(|a, b| a.name < b.name));
        }
    }
}
