//! Two servers, key by key.

use retoma_testkit::{RedisClient, RedisReply, RedisServer};
use std::collections::BTreeMap;

/// So many keys are asked for at once.
const BATCH: &str = "1000";

fn words(words: &[&[u8]]) -> Vec<Vec<u8>> {
    words.iter().map(|word| word.to_vec()).collect()
}

/// Which keys are meant, by their names.
type Fits = fn(&[u8]) -> bool;

/// Compares the keys of `left` whose names fit with those of `right`, in all databases: value (`DUMP`; or by its
/// elements, since a server may choose another encoding when it loads, and keeps sets and hashes in an order of its own)
/// and `PEXPIRETIME`. Gives how many keys each database has that fit.
#[track_caller]
pub(super) fn compare(left: &RedisServer, right: &RedisServer, fits: Fits) -> BTreeMap<usize, u64> {
    let mut clients = [left, right].map(RedisClient::connect);
    // How they would compress a value is none of its differences.
    for client in &mut clients {
        client.call(&["CONFIG", "SET", "rdbcompression", "no"]);
    }
    let mut counts = BTreeMap::new();
    for database in 0..16 {
        let number = database.to_string();
        for client in &mut clients {
            client.call(&["SELECT", &number]);
        }
        let count = compare_database(&mut clients, fits);
        if count > 0 {
            counts.insert(database, count);
        }
    }
    counts
}

#[track_caller]
fn compare_database(clients: &mut [RedisClient; 2], fits: Fits) -> u64 {
    let (mut cursor, mut count) = (b"0".to_vec(), 0);
    loop {
        let mut page = clients[0].call(&[b"SCAN" as &[u8], &cursor, b"COUNT", BATCH.as_bytes()]).many();
        let keys = page.pop().unwrap().many().into_iter().map(RedisReply::text);
        let keys: Vec<Vec<u8>> = keys.filter(|key| fits(key)).collect();
        cursor = page.pop().unwrap().text();
        let questions: Vec<_> =
            keys.iter().flat_map(|key| [words(&[b"PEXPIRETIME", key]), words(&[b"DUMP", key])]).collect();
        let [left, right] = clients.each_mut().map(|client| client.pipeline(&questions));
        for (at, key) in keys.iter().enumerate() {
            let name = String::from_utf8_lossy(key);
            assert_eq!(left[2 * at], right[2 * at], "PEXPIRETIME of `{name}`");
            if left[2 * at + 1] != right[2 * at + 1] {
                let [left, right] = clients.each_mut().map(|client| elements(client, key));
                assert!(
                    left == right,
                    "the value of `{name}` differs: {} bytes, {} bytes",
                    size(&left),
                    size(&right)
                );
            }
        }
        count += keys.len() as u64;
        if cursor == b"0" {
            return count;
        }
    }
}

/// The length of all elements together.
fn size(elements: &Elements) -> usize {
    elements.1.iter().flatten().map(Vec::len).sum()
}

/// A type, and elements of so many parts each.
type Elements = (Vec<u8>, Vec<Vec<Vec<u8>>>);

/// Type and elements of a key; those without an order sorted. Of streams, everything is in `DUMP`.
fn elements(client: &mut RedisClient, key: &[u8]) -> Elements {
    let kind = client.call(&[b"TYPE", key]).text();
    let (command, width): (&[&[u8]], _) = match kind.as_slice() {
        b"string" => (&[b"GET", key], 1),
        b"list" => (&[b"LRANGE", key, b"0", b"-1"], 1),
        b"set" => (&[b"SMEMBERS", key], 1),
        b"hash" => (&[b"HGETALL", key], 2),
        b"zset" => (&[b"ZRANGE", key, b"0", b"-1", b"WITHSCORES"], 2),
        _ => (&[b"DUMP", key], 1),
    };
    let found: Vec<Vec<u8>> = match client.call(command) {
        RedisReply::Many(many) => many.into_iter().map(RedisReply::text).collect(),
        RedisReply::Nil => Vec::new(),
        one => vec![one.text()],
    };
    let mut found: Vec<Vec<Vec<u8>>> = found.chunks(width).map(<[_]>::to_vec).collect();
    if matches!(kind.as_slice(), b"set" | b"hash") {
        found.sort();
    }
    (kind, found)
}

/// `DBSIZE` of each database that has keys.
pub(super) fn sizes(server: &RedisServer) -> BTreeMap<usize, u64> {
    let mut client = RedisClient::connect(server);
    let size = |database: usize| {
        client.call(&["SELECT", &database.to_string()]);
        let size = u64::try_from(client.call(&["DBSIZE"]).number()).unwrap();
        (size > 0).then_some((database, size))
    };
    (0..16).filter_map(size).collect()
}
