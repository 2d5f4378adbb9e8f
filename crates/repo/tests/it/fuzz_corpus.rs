//! Replays the fuzzers' corpus on every test run, without a nightly compiler.

#[allow(unreachable_pub)] // It is a module of the fuzz targets too.
#[path = "../../../../fuzz/bodies.rs"]
mod bodies;

use std::path::Path;

fn replay(target: &str, body: fn(&[u8])) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target);
    let mut count = 0;
    for entry in std::fs::read_dir(&corpus).unwrap() {
        let path = entry.unwrap().path();
        println!("{}", path.display());
        body(&std::fs::read(path).unwrap());
        count += 1;
    }
    assert!(count >= 3, "the corpus of {target} is missing");
}

#[test]
fn pack_headers() {
    replay("pack_header", bodies::pack_header);
}

#[test]
fn index_files() {
    replay("index", bodies::index);
}

#[test]
fn trees() {
    replay("tree", bodies::tree);
}

#[test]
fn snapshots() {
    replay("snapshot", bodies::snapshot);
}

#[test]
fn key_files() {
    replay("key_file", bodies::key_file);
}

#[test]
fn configs() {
    replay("config", bodies::config);
}

#[test]
fn manifests() {
    replay("manifest", bodies::manifest);
}

#[test]
fn evidence_records() {
    replay("evidence_record", bodies::evidence_record);
}
