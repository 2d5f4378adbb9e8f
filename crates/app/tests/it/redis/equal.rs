//! What was backed up under load comes back equal.

use super::load::{Load, WRITERS, is_of_load, replayed, seen};
use super::same::{compare, sizes};
use super::{component, dump_below, recovered};
use crate::kit::Home;
use retoma_testkit::{RedisClient, RedisServer, fill_redis};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::Instant;

/// How many keys nobody writes to while the backup runs: `RETOMA_KEYS`, else a few.
fn still_keys() -> u64 {
    std::env::var("RETOMA_KEYS").map_or(5_000, |text| text.parse().unwrap())
}

/// `count` keys of all types, half of them with an expiry.
fn fill_still(server: &RedisServer, count: u64) {
    const SCRIPT: &str = "for i = tonumber(ARGV[1]), tonumber(ARGV[2]) do local k, t = 'still:' .. i, i % 7 \
        if t == 0 then redis.call('SET', k, i) elseif t == 1 then redis.call('SET', k, string.rep('v' .. i, 8)) \
        elseif t == 2 then redis.call('RPUSH', k, i, 'x' .. i, 'y') \
        elseif t == 3 then redis.call('SADD', k, i, i + 1) if i % 2 == 1 then redis.call('SADD', k, 'm') end \
        elseif t == 4 then redis.call('HSET', k, 'f', i, 'g', 'v' .. i) \
        elseif t == 5 then redis.call('ZADD', k, i, 'a', i / 8, 'b') \
        else redis.call('XADD', k, '1-1', 'n', i) redis.call('XADD', k, '2-1', 'n', i) \
        redis.call('XGROUP', 'CREATE', k, 'readers', '0') \
        redis.call('XREADGROUP', 'GROUP', 'readers', 'ana', 'COUNT', '1', 'STREAMS', k, '>') end \
        if i % 2 == 0 then redis.call('PEXPIREAT', k, 32000000000000 + i) end end";
    let mut client = RedisClient::connect(server);
    for start in (0..count).step_by(20_000) {
        let last = (start + 19_999).min(count - 1);
        client.call(&["EVAL", SCRIPT, "0", &start.to_string(), &last.to_string()]);
    }
}

/// The encodings that the server holds its values in, by type.
fn encodings(server: &RedisServer) -> BTreeSet<String> {
    let mut client = RedisClient::connect(server);
    let keys: Vec<Vec<u8>> = client.call(&["KEYS", "*"]).many().into_iter().map(|key| key.text()).collect();
    let mut found = BTreeSet::new();
    for key in keys {
        let kind = client.call(&[b"TYPE", &key[..]]).text();
        let encoding = client.call(&[b"OBJECT", &b"ENCODING"[..], &key]).text();
        found.insert(String::from_utf8([kind, encoding].join(&b' ')).unwrap());
    }
    found
}

#[test]
fn keys_of_all_types_backed_up_under_load_come_back_equal() {
    let Some(server) = RedisServer::start() else { return };
    fill_redis(&server);
    let encodings = encodings(&server);
    for expected in [
        "string int",
        "string embstr",
        "string raw",
        "list quicklist",
        "set intset",
        "set hashtable",
        "hash listpack",
        "hash hashtable",
        "zset listpack",
        "zset skiplist",
        "stream stream",
    ] {
        assert!(encodings.contains(expected), "{expected} is not in {encodings:?}");
    }
    fill_still(&server, still_keys());
    let still = sizes(&server);
    let home = Home::with(&component(&server.url()));
    let (stop, written) = (AtomicBool::new(false), [const { AtomicU64::new(0) }; WRITERS]);
    let mut command = home.command();
    command.args(["backup", "--json"]);
    let (before, after, took, peak) = std::thread::scope(|scope| {
        let load = Load::start(scope, &server, &stop, &written);
        let before = load.numbers();
        let (run, took, peak) = home.measured(command);
        let after = load.numbers();
        run.expect(0);
        (before, after, took, peak)
    });
    let began = Instant::now();
    let restored = recovered(&home, "blank", &server);
    let recovery = began.elapsed();

    // Each writer is at one of its own transactions: of those before the backup none is missing, and none is half there.
    let at = seen(&restored);
    for writer in 0..WRITERS {
        assert!((before[writer]..=after[writer] + 1).contains(&at[writer]), "{before:?} {at:?} {after:?}");
        assert!(before[writer] < after[writer], "nobody wrote during the backup: {before:?} {after:?}");
    }
    let truth = replayed(at);
    let loaded = compare(&truth, &restored, is_of_load);
    assert_eq!(loaded.keys().collect::<Vec<_>>(), [&0]);
    assert_eq!(compare(&restored, &truth, is_of_load), loaded);

    // What nobody wrote to is as in the server, which still has it.
    let mut expected = still.clone();
    *expected.get_mut(&0).unwrap() += loaded[&0];
    assert_eq!(sizes(&restored), expected);
    assert_eq!(compare(&server, &restored, |key| !is_of_load(key)), still);
    assert_eq!(restored.cli(&["FUNCTION", "LIST"]), server.cli(&["FUNCTION", "LIST"]));
    let size = std::fs::metadata(dump_below(&home.path("blank"), &server)).unwrap().len();
    println!(
        "{} keys and {:?} transactions of {WRITERS} writers, {} during the backup: RDB {size} bytes, backup {took:?} (peak {} \
         MiB), recovery with its checks and a start {recovery:?}",
        expected.values().sum::<u64>(),
        at.iter().sum::<u64>(),
        after.iter().sum::<u64>() - before.iter().sum::<u64>(),
        peak >> 20
    );
}
