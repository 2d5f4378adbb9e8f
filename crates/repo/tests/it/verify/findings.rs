//! Findings that need a repository made wrong on purpose, and the ways to examine a part.

use super::{Fixture, files, noise, text};
use retoma_core::{ErrorKind, error::codes};
use retoma_repo::backup::Progress;
use retoma_repo::format::BlobKind;
use retoma_repo::format::index::{IndexFile, IndexPack};
use retoma_repo::format::snapshot::Snapshot;
use retoma_repo::format::tree::{self, Node, NodeKind};
use retoma_repo::ops::verify::{Options, ReadData, Report, Severity, verify};
use retoma_repo::store::{Key, PutMode};
use retoma_repo::{BlobId, Folder, IndexId, PackId, SnapshotId};

fn small() -> Fixture {
    let mut fixture = Fixture::new();
    fixture.back_up("logs", &files([("a/one", text(1, 3_000)), ("two", noise(2, 2_000))]));
    fixture
}

fn store_pack(fixture: &Fixture, kind: BlobKind, plaintexts: &[&[u8]], claimed: Option<BlobId>) -> IndexPack {
    crate::written::pack(&fixture.repository, kind, plaintexts, claimed)
}

fn store_index(fixture: &Fixture, packs: Vec<IndexPack>) -> IndexId {
    fixture.repository.save_index_file(&IndexFile { supersedes: Vec::new(), packs }).unwrap()
}

fn store_snapshot(fixture: &Fixture, tree: BlobId) -> SnapshotId {
    let known = fixture.repository.snapshots().unwrap()[0].1.clone();
    fixture.repository.save_snapshot(&Snapshot { tree, ..known }).unwrap()
}

fn only(report: &Report) -> &retoma_repo::ops::verify::Finding {
    assert_eq!(report.findings.len(), 1, "{report:#?}");
    &report.findings[0]
}

#[test]
fn a_blob_with_other_contents_is_found_although_everything_is_sealed_right() {
    finds_other_contents(b"what it became");
}

/// It expands to more than is kept in memory.
#[test]
fn a_huge_blob_with_other_contents_is_found_too() {
    finds_other_contents(&b"what it became".repeat(1 << 20));
}

/// It is not compressed, and opened where it lies.
#[test]
fn a_huge_blob_that_does_not_compress_is_looked_at_too() {
    finds_other_contents(&noise(9, 9 << 20));
}

fn finds_other_contents(contents: &[u8]) {
    let fixture = small();
    let wanted = BlobId::of(b"what the file should be");
    let pack = store_pack(&fixture, BlobKind::Data, &[contents], Some(wanted));
    let object = fixture.repository.pack_key(pack.id).unwrap().as_str().to_owned();
    let mut node = Node::new("f", NodeKind::File);
    (node.size_bytes, node.content) = (pack.blobs[0].plaintext_bytes(), vec![wanted]);
    let tree = tree::to_json(&[node]).unwrap();
    let trees = store_pack(&fixture, BlobKind::Tree, &[&tree], None);
    store_index(&fixture, vec![pack, trees]);
    let snapshot = store_snapshot(&fixture, BlobId::of(&tree));
    assert!(fixture.verify(ReadData::None).findings.is_empty());
    let report = fixture.verify(ReadData::All);
    let finding = only(&report);
    assert_eq!((finding.code, finding.severity), (codes::HASH_MISMATCH, Severity::Damage));
    assert_eq!((finding.object.as_str(), finding.offset_bytes, finding.blobs), (object.as_str(), Some(0), 1));
    assert_eq!(finding.snapshots.len(), 1);
    assert_eq!((finding.snapshots[0].id, &finding.snapshots[0].paths[0][..]), (snapshot, &b"/f"[..]));
    assert_eq!(finding.snapshots[0].component.as_deref(), Some("logs"));
}

#[test]
fn a_size_that_is_not_the_sum_of_the_blobs_and_a_blob_of_the_wrong_kind_are_found() {
    let fixture = small();
    let data = store_pack(&fixture, BlobKind::Data, &[b"seven b"], None);
    let mut wrong = Node::new("wrong", NodeKind::File);
    (wrong.size_bytes, wrong.content) = (8, vec![data.blobs[0].id]);
    let mut directory = Node::new("zdir", NodeKind::Directory);
    directory.subtree = Some(data.blobs[0].id);
    let json = tree::to_json(&[wrong, directory]).unwrap();
    let trees = store_pack(&fixture, BlobKind::Tree, &[&json], None);
    store_index(&fixture, vec![data, trees]);
    let snapshot = store_snapshot(&fixture, BlobId::of(&json));
    let report = fixture.verify(ReadData::None);
    assert_eq!(report.snapshots_hit(), [snapshot]);
    let path = |code| {
        let finding = report.damage().find(|finding| finding.code == code).unwrap();
        finding.snapshots[0].paths.clone()
    };
    assert_eq!(path(codes::SIZE_MISMATCH), [b"/wrong".to_vec()]);
    assert_eq!(path(codes::BLOB_MISSING), [b"/zdir/".to_vec()]);
}

#[test]
fn an_authentic_tree_that_is_no_tree_is_found_with_its_path() {
    let fixture = small();
    let trees = store_pack(&fixture, BlobKind::Tree, &[br#"{"nodes":[{"name":"..","type":"fifo"}]}"#], None);
    let mut directory = Node::new("d", NodeKind::Directory);
    directory.subtree = Some(trees.blobs[0].id);
    let json = tree::to_json(&[directory]).unwrap();
    let root = store_pack(&fixture, BlobKind::Tree, &[&json], None);
    store_index(&fixture, vec![trees, root]);
    store_snapshot(&fixture, BlobId::of(&json));
    let report = fixture.verify(ReadData::All);
    let finding = only(&report);
    assert_eq!(finding.code, codes::MALFORMED);
    assert_eq!(finding.snapshots[0].paths, [b"/d/".to_vec()]);
}

#[test]
fn an_index_that_tells_other_things_than_the_packs_is_found() {
    let fixture = small();
    let (id, _) = fixture.repository.list(Folder::Index).unwrap()[0];
    let file = fixture.repository.index_file(IndexId(id)).unwrap();
    let lying = |change: &dyn Fn(&mut IndexPack)| {
        let mut file = file.clone();
        file.packs.iter_mut().for_each(change);
        fixture.store.hide(&format!("index/{}", IndexId(id)));
        let lying = store_index(&fixture, file.packs);
        let report = fixture.verify(ReadData::All);
        fixture.store.hide(&format!("index/{lying}"));
        report
    };
    let overlap = lying(&|pack| pack.blobs.iter_mut().for_each(|blob| blob.offset_bytes /= 2));
    assert!(overlap.damage().any(|finding| finding.code == codes::INDEX_MISMATCH), "{overlap:#?}");
    let beyond = lying(&|pack| pack.blobs[0].length_bytes = u32::MAX / 2);
    assert!(beyond.is_damaged() && !beyond.snapshots_hit().is_empty(), "{beyond:#?}");
    let renamed = lying(&|pack| pack.blobs[0].id = BlobId::of(b"another"));
    assert!(renamed.damage().any(|finding| finding.code == codes::INDEX_MISMATCH), "{renamed:#?}");
    assert!(renamed.damage().any(|finding| finding.code == codes::BLOB_MISSING), "{renamed:#?}");
    let expanded = lying(&|pack| pack.blobs[0].uncompressed_bytes = Some(u32::MAX));
    assert!(!expanded.snapshots_hit().is_empty(), "{expanded:#?}");
    fixture.store.heal();
}

#[test]
fn what_does_not_belong_there_is_a_note() {
    let fixture = small();
    let put = |name: &str| {
        fixture.repository.store().put(&Key::new(name).unwrap(), vec![1].into(), PutMode::Create).unwrap();
    };
    let unindexed = store_pack(&fixture, BlobKind::Data, &[b"the rest of a stopped backup"], None);
    put("snapshots/README");
    put(&format!("data/zz/{}", unindexed.id));
    let report = fixture.verify(ReadData::All);
    assert!(!report.is_damaged());
    let codes: Vec<&str> = report.findings.iter().map(|finding| finding.code.as_str()).collect();
    assert_eq!(codes.len(), 3);
    assert_eq!(codes.iter().filter(|code| **code == "R0216").count(), 2, "{report:#?}");
    assert!(codes.contains(&"R0215"));
}

#[test]
fn a_sample_reads_its_share_and_another_seed_another_share() {
    let mut fixture = Fixture::new();
    for number in 0..20 {
        fixture.back_up("logs", &files([("f", noise(number, 500))]));
    }
    let counts = |read_data| fixture.verify(read_data).counts;
    let all = counts(ReadData::All);
    assert_eq!((all.packs, all.packs_read, all.snapshots, all.files, all.keys), (40, 40, 20, 20, 1));
    assert_eq!(counts(ReadData::Sample(25.0, 1)).packs_read, 10);
    assert_eq!(counts(ReadData::Sample(0.1, 1)).packs_read, 1);
    assert_eq!(counts(ReadData::None).packs_read, 0);
    // A pack of files: those of directories are read anyway.
    let index = fixture.repository.load_index().unwrap();
    let pack = index.iter(BlobKind::Data).next().unwrap().pack;
    let key = fixture.repository.pack_key(pack).unwrap();
    let mut contents = fixture.repository.store().get(&key).unwrap().to_vec();
    contents[40] ^= 1;
    fixture.store.replace(key.as_str(), contents);
    let found = (0..40).filter(|seed| fixture.verify(ReadData::Sample(25.0, *seed)).is_damaged()).count();
    assert!((1..40).contains(&found), "{found}");
}

#[test]
fn a_stop_that_was_asked_for_ends_the_work() {
    let fixture = small();
    let progress = Progress::default();
    progress.cancel();
    let stopped = verify(&fixture.repository, &Options::default(), &progress).unwrap_err();
    assert_eq!(stopped.kind(), ErrorKind::Cancelled);
}

#[test]
fn a_pack_of_another_tools_size_is_read_in_pieces() {
    let fixture = small();
    let blobs: Vec<Vec<u8>> = (0..10).map(|seed| noise(seed + 50, 4 << 20)).collect();
    let large: Vec<&[u8]> = blobs.iter().map(Vec::as_slice).collect();
    let pack = store_pack(&fixture, BlobKind::Data, &large, None);
    let name = fixture.repository.pack_key(pack.id).unwrap();
    let last = pack.blobs[9].offset_bytes;
    store_index(&fixture, vec![pack]);
    assert!(fixture.verify(ReadData::All).findings.is_empty());
    let mut contents = fixture.repository.store().get(&name).unwrap().to_vec();
    contents[last as usize + 1_000_000] ^= 4;
    fixture.store.replace(name.as_str(), contents);
    let report = fixture.verify(ReadData::All);
    let finding = only(&report);
    assert_eq!((finding.code, finding.offset_bytes), (codes::NOT_AUTHENTIC, Some(u64::from(last))));
    assert!(finding.snapshots.is_empty());
}

#[test]
fn a_blob_with_other_contents_is_never_given_out() {
    let fixture = small();
    let wanted = BlobId::of(b"what the file should be");
    let pack = store_pack(&fixture, BlobKind::Data, &[b"what it became"], Some(wanted));
    store_index(&fixture, vec![pack]);
    let index = fixture.repository.load_index().unwrap();
    let error = fixture.repository.read_blob(&index, BlobKind::Data, &wanted).unwrap_err();
    assert_eq!((error.kind(), error.code()), (ErrorKind::Corrupt, codes::HASH_MISMATCH));
}

#[test]
fn a_pack_under_another_name_is_found_although_all_in_it_is_authentic() {
    let fixture = small();
    let pack = store_pack(&fixture, BlobKind::Data, &[b"in both packs"], None);
    let key = fixture.repository.pack_key(pack.id).unwrap();
    let other = PackId::of(b"another pack");
    let bytes = fixture.repository.store().get(&key).unwrap();
    let name = fixture.repository.pack_key(other).unwrap();
    fixture.repository.store().put(&name, bytes, PutMode::Create).unwrap();
    store_index(&fixture, vec![IndexPack { id: other, blobs: pack.blobs.clone() }, pack]);
    let report = fixture.verify(ReadData::All);
    let finding = only(&report);
    assert_eq!((finding.code, finding.object.as_str()), (codes::HASH_MISMATCH, name.as_str()));
}

#[test]
fn a_snapshot_under_the_name_of_another_is_refused() {
    let mut fixture = small();
    let first = fixture.repository.snapshots().unwrap()[0].0;
    let second = fixture.back_up("models", &files([("three", noise(3, 100))]));
    let name = |id: SnapshotId| Folder::Snapshots.key(&id.to_hex()).unwrap();
    let other = fixture.repository.store().get(&name(second)).unwrap();
    fixture.store.replace(name(first).as_str(), other.to_vec());
    let error = fixture.repository.snapshot(first).unwrap_err();
    assert_eq!((error.kind(), error.code()), (ErrorKind::Corrupt, codes::HASH_MISMATCH));
}

#[test]
fn a_piece_of_a_file_that_no_index_names_is_found() {
    let fixture = small();
    let mut node = Node::new("f", NodeKind::File);
    (node.size_bytes, node.content) = (4, vec![BlobId::of(b"lost")]);
    let json = tree::to_json(&[node]).unwrap();
    let trees = store_pack(&fixture, BlobKind::Tree, &[&json], None);
    store_index(&fixture, vec![trees]);
    let snapshot = store_snapshot(&fixture, BlobId::of(&json));
    let report = fixture.verify(ReadData::None);
    let finding = only(&report);
    assert_eq!((finding.code, finding.severity), (codes::BLOB_MISSING, Severity::Damage));
    assert_eq!((finding.snapshots[0].id, &finding.snapshots[0].paths[..]), (snapshot, &[b"/f".to_vec()][..]));
}
