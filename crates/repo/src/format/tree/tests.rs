use super::*;
use proptest::prelude::*;

fn kinds() -> impl Strategy<Value = NodeKind> {
    use NodeKind::{BlockDevice, CharDevice, Directory, Fifo, File, Irregular, Socket, Symlink};
    prop::sample::select(vec![File, Directory, Symlink, BlockDevice, CharDevice, Fifo, Socket, Irregular])
}

prop_compose! {
    fn node()(
        name in prop::collection::vec(1u8..255, 1..20),
        kind in kinds(),
        mode in 0u32..0o10000,
        seconds in -1_000_000_000i64..10_000_000_000,
        nanoseconds in 0i64..1_000_000_000,
        numbers: (u32, u32, u64, u64, u64),
        target in prop::collection::vec(any::<u8>(), 1..20),
        xattrs in prop::collection::vec(("[a-z.]{1,9}", prop::collection::vec(any::<u8>(), 0..9)), 0..3),
        content in prop::collection::vec(any::<[u8; 32]>(), 0..4),
    ) -> Node {
        let name: Vec<u8> = name.into_iter().map(|b| if b == b'/' { b'_' } else { b }).collect();
        let name = if name == b"." || name == b".." { b"x".to_vec() } else { name };
        let mut node = Node::new(name, kind);
        node.mode = mode;
        node.mtime = Time::from_unix(seconds, nanoseconds);
        (node.uid, node.gid, node.inode, node.size_bytes, node.device) = numbers;
        node.user = "ana".into();
        node.xattrs = xattrs.into_iter().map(|(name, value)| Xattr { name, value }).collect();
        match kind {
            NodeKind::File => node.content = content.into_iter().map(BlobId).collect(),
            NodeKind::Directory => node.subtree = Some(BlobId([4; 32])),
            NodeKind::Symlink => node.link_target = Some(target.into()),
            _ => {}
        }
        node
    }
}

proptest! {
    #[test]
    fn trees_round_trip(nodes in prop::collection::btree_map(any::<u8>(), node(), 0..6)) {
        let mut nodes: Vec<Node> = nodes.into_values().collect();
        nodes.sort_by(|a, b| a.name.cmp(&b.name));
        nodes.dedup_by(|a, b| a.name == b.name);
        prop_assert_eq!(from_json(&to_json(&nodes).unwrap()).unwrap(), nodes);
    }

    #[test]
    fn any_bytes_are_read_or_refused_but_never_panic(json: Vec<u8>) {
        let _ = from_json(&json);
    }
}

#[test]
fn what_restic_writes_is_read() {
    let json = br#"{"nodes":[{"name":"testdata","type":"dir","mode":2147484141,
        "mtime":"2014-12-22T14:47:59.912418701+01:00","atime":"2014-12-06T17:49:21.748468803+01:00",
        "ctime":"2014-12-22T14:47:59.912418701+01:00","uid":1000,"gid":100,"user":"fd0","inode":409704562,
        "content":null,"subtree":"b26e315b0988ddcd1cee64c351d13a100fedbc9fdbb144a67d1b765ab280b4dc"}]}
"#;
    let nodes = from_json(json).unwrap();
    assert_eq!((nodes[0].kind, nodes[0].mode), (NodeKind::Directory, 0o755));
}

#[test]
fn the_bytes_are_those_that_restic_expects() {
    let mut node = Node::new("ü", NodeKind::File);
    node.mode = 0o4755;
    let json = String::from_utf8(to_json(&[node]).unwrap()).unwrap();
    let zero = "0001-01-01T00:00:00Z";
    let expected = format!(
        "{{\"nodes\":[{{\"name\":\"ü\",\"type\":\"file\",\"mode\":8389101,\"mtime\":\"{zero}\",\"atime\":\"{zero}\",\
         \"ctime\":\"{zero}\",\"uid\":0,\"gid\":0,\"content\":[]}}]}}\n"
    );
    assert_eq!(json, expected);
}

#[test]
fn hostile_trees_are_refused() {
    let node = |name: &str| format!(r#"{{"name":"{name}","type":"file","content":[]}}"#);
    let tree = |nodes: &[&str]| format!("{{\"nodes\":[{}]}}", nodes.join(","));
    let refused = |json: String| from_json(json.as_bytes()).is_err();
    for name in ["..", ".", "", "a/b", "/etc/passwd", "..\\\\x2f", "a\\\\x00", "\\\\x2e\\\\x2e"] {
        assert!(refused(tree(&[&node(name)])), "{name}");
    }
    assert!(refused(tree(&[&node("a"), &node("a")])), "twice");
    assert!(refused(tree(&[&node("b"), &node("a")])), "out of order");
    assert!(refused(tree(&[r#"{"name":"a","type":"file","content":null}"#])), "no blobs");
    assert!(refused(tree(&[r#"{"name":"a","type":"dir","content":null}"#])), "no tree");
    assert!(refused(tree(&[r#"{"name":"a","type":"symlink","content":null}"#])), "no target");
    assert!(!refused(tree(&[&node("a"), &node("b")])));
}
