//! A stream that is killed at random moments leaves no gap. `RETOMA_KILLS` sets how often.

use super::{Site, setting};
use retoma_testkit::Random;
use std::time::Duration;

#[test]
fn a_stream_that_is_killed_leaves_no_gap() {
    let Some(site) = Site::start("mode = \"stream\"", &["wal_keep_size = 4GB"]) else { return };
    site.pgbench(&["-i", "-q", "-s", "1"]);
    let mut pgbench = site.start_pgbench(2);
    let mut random = Random::new(setting("SEED", 7));
    site.streaming().kill();
    for number in 0..setting("RETOMA_KILLS", 5) {
        let stream = site.stream(&format!("stream{number}"));
        // The moment is what is random here, nothing is waited for.
        std::thread::sleep(Duration::from_millis(random.below(1500)));
        stream.kill();
    }
    let last = site.streaming();
    pgbench.kill().unwrap();
    pgbench.wait().unwrap();
    let until = site.shipped();
    assert_eq!(last.stop(), Some(0));
    for repository in ["near", "far"] {
        site.assert_whole(repository, until);
    }
    let checked = site.retoma(&["wal", "check", "--json"]).expect(0).document();
    assert_eq!(checked["servers"][0]["gaps"].as_array().unwrap().len(), 0, "{checked:#}");
}
