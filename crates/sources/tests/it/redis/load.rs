//! Under load, and large.

use super::{Home, address, state};
use retoma_sources::redis::{CheckOptions, Connection, check};
use retoma_testkit::{RedisServer, redis_command};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

/// The writes of transaction `number`: what the server holds after it is determined by the number alone.
fn transaction(number: u64) -> Vec<Vec<Vec<u8>>> {
    let text = number.to_string();
    let words = |words: &[&str]| words.iter().map(|word| word.as_bytes().to_vec()).collect();
    vec![
        words(&["SET", "sequence", &text]),
        words(&["SET", &format!("key:{}", number % 5_000), &text]),
        words(&[
            "PEXPIREAT",
            &format!("key:{}", number % 5_000),
            &format!("{}", 32_000_000_000_000 + number),
        ]),
        words(&["RPUSH", &format!("list:{}", number % 50), &text]),
        words(&["HSET", "hash", &format!("{}", number % 3_000), &text]),
        words(&["ZADD", "zset", &text, &format!("{}", number % 2_000)]),
        words(&["SADD", "set", &format!("{}", number % 4_000)]),
        words(&["DEL", &format!("key:{}", (number * 7 + 1) % 5_000)]),
        words(&["XADD", "stream", &format!("{number}-1"), "n", &text]),
    ]
}

/// Writes transactions from 1 on, each as one, until it is told to stop.
fn write(server: &RedisServer, stop: &AtomicBool, written: &AtomicU64) {
    let url = format!("unix://{}", server.socket().display());
    let mut connection = Connection::connect(&address(&url)).unwrap();
    for number in 1.. {
        if stop.load(Ordering::SeqCst) {
            return;
        }
        connection.call(&[b"MULTI"]).unwrap();
        for command in transaction(number) {
            connection.call(&command.iter().map(Vec::as_slice).collect::<Vec<_>>()).unwrap();
        }
        connection.call(&[b"EXEC"]).unwrap();
        written.store(number, Ordering::SeqCst);
    }
}

/// The first `count` transactions, on a server of their own: the independent truth.
fn replayed(count: u64) -> RedisServer {
    let server = RedisServer::start().unwrap();
    let commands: Vec<u8> =
        (1..=count).flat_map(transaction).flat_map(|words| redis_command(&words)).collect();
    server.pipe(&commands);
    server
}

#[test]
fn a_capture_under_load_is_the_state_after_one_transaction() {
    let Some(server) = RedisServer::start() else { return };
    let home = Home::new();
    let (stop, written) = (AtomicBool::new(false), AtomicU64::new(0));
    let captured = std::thread::scope(|scope| {
        scope.spawn(|| write(&server, &stop, &written));
        let captured = [300, 900].map(|after| {
            retoma_testkit::wait_for(|| (written.load(Ordering::SeqCst) > after).then_some(()));
            let before = written.load(Ordering::SeqCst);
            let captured = home.try_back_up(&server.url(), None);
            let behind = written.load(Ordering::SeqCst);
            captured.map(|(summary, facts)| (summary, facts, before, behind))
        });
        stop.store(true, Ordering::SeqCst);
        captured
    });
    for captured in captured {
        let (summary, facts, before, behind) = captured.unwrap();
        let restored = home.server(&summary);
        let number: u64 = restored.cli(&["GET", "sequence"]).parse().unwrap();
        assert!((before..=behind + 1).contains(&number), "{before} {number} {behind}");
        let truth = replayed(number);
        assert_eq!(state(&restored), state(&truth), "after transaction {number}");
        assert_eq!(facts.keys().to_string(), truth.cli(&["DBSIZE"]));
        // The sum tells neighbours apart.
        if number == before.max(301) {
            assert_ne!(state(&replayed(number + 1)).0, state(&truth).0);
        }
    }
}

/// A million keys of all types, a half of them with an expiry.
fn million(server: &RedisServer) {
    const SCRIPT: &str = "for i = tonumber(ARGV[1]), tonumber(ARGV[2]) do local k, t = 'key:' .. i, i % 7 \
        if t == 0 then redis.call('SET', k, i) elseif t == 1 then redis.call('SET', k, string.rep('v' .. i, 8)) \
        elseif t == 2 then redis.call('RPUSH', k, i, 'x' .. i, 'y') elseif t == 3 then redis.call('SADD', k, i, i + 1, 'm' .. i % 2) \
        elseif t == 4 then redis.call('HSET', k, 'f', i, 'g', 'v' .. i) elseif t == 5 then redis.call('ZADD', k, i, 'a', i / 8, 'b') \
        else redis.call('XADD', k, '1-1', 'n', i) end \
        if i % 2 == 0 then redis.call('PEXPIREAT', k, 32000000000000 + i) end end";
    for start in (0..1_000_000).step_by(20_000) {
        server.cli(&["EVAL", SCRIPT, "0", &start.to_string(), &(start + 19_999).to_string()]);
    }
}

/// The peak of this process's memory that is its own, in bytes.
fn peak_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

#[test]
fn a_million_keys_of_all_types_come_back() {
    let Some(server) = RedisServer::start() else { return };
    million(&server);
    let home = Home::new();
    let began = Instant::now();
    let (summary, facts) = home.back_up(&server);
    let (captured, peak) = (began.elapsed(), peak_bytes());
    assert_eq!(facts.databases[&0].keys, 1_000_000);
    assert_eq!(facts.databases[&0].expires, 500_000);
    assert_eq!(facts.types.len(), 6);
    let copy = home.copy(&summary, "copy");
    let began = Instant::now();
    let report = check(&copy, Some(&facts), &CheckOptions::default()).unwrap();
    let checked = began.elapsed();
    assert!(report.passed(), "{report:#?}");
    let restored = home.server(&summary);
    assert_eq!(state(&restored), state(&server));
    println!(
        "captured {} bytes in {captured:?} ({:.0} keys/s), peak {} MiB; checked in {checked:?}",
        facts.bytes,
        1e6 / captured.as_secs_f64(),
        peak >> 20
    );
}
